//! The examples, run against the server that the environment names, and the guide that
//! quotes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

macro_rules! examples {
    ($($name:ident: $path:literal),* $(,)?) => {
        $(
            #[path = $path]
            mod $name;
        )*

        /// What needs a server is ignored unless asked for; the end-to-end run asks for it.
        mod live {
            $(
                #[test]
                #[ignore = "needs a server"]
                fn $name() {
                    super::$name::main().unwrap();
                }
            )*
        }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

examples! {
    commands: "../../examples/commands.rs",
    files: "../../examples/files.rs",
    interpreter: "../../examples/interpreter.rs",
    lifecycle: "../../examples/lifecycle.rs",
    network: "../../examples/network.rs",
    observe: "../../examples/observe.rs",
    sandbox: "../../examples/sandbox.rs",
    template: "../../examples/template.rs",
    terminal: "../../examples/terminal.rs",
    volume: "../../examples/volume.rs",
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_example_is_run() {
    let files = fs::read_dir(here("examples")).unwrap();
    let there: BTreeSet<String> = files
        .map(|file| file.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let run: BTreeSet<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(there, run);
}

/// Lines without their indentation: the guide shows the middle of functions.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

fn rust_blocks(page: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("```rust\n") {
        let (block, after) = after.split_once("\n```").expect("the block ends");
        blocks.push(lines(block));
        rest = after;
    }
    blocks
}

#[test]
fn the_guide_shows_what_the_examples_do() {
    let page = fs::read_to_string(here("../../docs/rust.md")).unwrap();
    let examples: Vec<String> = NAMES
        .iter()
        .map(|name| fs::read_to_string(here(&format!("examples/{name}.rs"))).unwrap())
        .collect();
    let examples: Vec<Vec<&str>> = examples.iter().map(|text| lines(text)).collect();
    let blocks = rust_blocks(&page);
    assert!(blocks.len() >= NAMES.len(), "{} blocks", blocks.len());
    for block in blocks {
        let shown = examples
            .iter()
            .any(|example| example.windows(block.len()).any(|lines| lines == block));
        assert!(shown, "no example has:\n{}", block.join("\n"));
    }
}
