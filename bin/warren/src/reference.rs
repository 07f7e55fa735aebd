//! The reference pages of the documentation, written from the code. The test fails when they
//! are stale; `cargo xtask docs-reference` writes them anew.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;

const NOTE: &str =
    "<!-- Written by `cargo xtask docs-reference` from the code; do not edit. -->\n\n";

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// What somebody types for an argument.
fn typed(argument: &Arg) -> String {
    let value = argument
        .get_value_names()
        .filter(|_| argument.get_action().takes_values())
        .map(|names| names.join(" "))
        .unwrap_or_default();
    if argument.is_positional() {
        return value;
    }
    let short = argument.get_short().map(|short| format!("-{short}, "));
    let long = argument.get_long().unwrap_or_default();
    let mut out = format!("{}--{long}", short.unwrap_or_default());
    if !value.is_empty() {
        write!(out, " {value}").unwrap();
    }
    out
}

fn default(argument: &Arg) -> String {
    if !argument.get_action().takes_values() || argument.is_hide_default_value_set() {
        return String::new();
    }
    let values: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    values.join(", ")
}

fn meaning(argument: &Arg) -> String {
    let mut out = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let values: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() && argument.get_action().takes_values() {
        write!(out, " One of {}.", values.join(", ")).unwrap();
    }
    cell(&out)
}

fn arguments(command: &Command, is_global: bool) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(move |argument| {
        let name = argument.get_id().as_str();
        !argument.is_hide_set()
            && !matches!(name, "help" | "version")
            && argument.is_global_set() == is_global
    })
}

fn table(out: &mut String, arguments: &[&Arg]) {
    if arguments.is_empty() {
        return;
    }
    out.push_str("| argument | variable | default | meaning |\n| --- | --- | --- | --- |\n");
    for argument in arguments {
        let variable = argument
            .get_env()
            .map(|name| format!("`{}`", name.to_string_lossy()));
        writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            cell(&typed(argument)),
            variable.unwrap_or_default(),
            default(argument),
            meaning(argument)
        )
        .unwrap();
    }
    out.push('\n');
}

fn about(command: &Command) -> String {
    let text = command.get_long_about().or_else(|| command.get_about());
    text.map(ToString::to_string).unwrap_or_default()
}

fn describe(out: &mut String, command: &Command, path: &str) {
    let name = format!("{path} {}", command.get_name());
    writeln!(out, "## {name}\n\n{}\n", about(command)).unwrap();
    let aliases: Vec<String> = command
        .get_visible_aliases()
        .map(|alias| format!("`{alias}`"))
        .collect();
    if !aliases.is_empty() {
        writeln!(out, "Also: {}.\n", aliases.join(", ")).unwrap();
    }
    let mut own: Vec<&Arg> = arguments(command, false).collect();
    own.sort_by_key(|argument| !argument.is_positional());
    table(out, &own);
    for inner in subcommands(command) {
        describe(out, inner, &name);
    }
}

fn subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
}

/// Every command with its arguments.
fn cli() -> String {
    let mut grammar = Cli::command();
    grammar.build();
    let mut out = format!(
        "# Commands\n\n{NOTE}How they are used: [the command line](../cli.md). The flags of the server have a page of their own: [configuration](configuration.md).\n\n"
    );
    out.push_str("## Everywhere\n\n");
    let mut global: Vec<&Arg> = arguments(&grammar, true).collect();
    if let Some(group) = grammar.find_subcommand("sandbox") {
        let known: Vec<&str> = global.iter().map(|one| one.get_id().as_str()).collect();
        let more: Vec<&Arg> = arguments(group, true)
            .filter(|one| !known.contains(&one.get_id().as_str()))
            .collect();
        global.extend(more);
    }
    table(&mut out, &global);
    for command in subcommands(&grammar) {
        if command.get_name() != "up" {
            describe(&mut out, command, "warren");
        }
    }
    out
}

/// The flags and variables of the server.
fn configuration() -> String {
    let mut grammar = Cli::command();
    grammar.build();
    let up = grammar.find_subcommand("up").unwrap();
    let mut out = format!(
        "# Configuration of the server\n\n{NOTE}`warren up` takes everything as a flag or as a variable; flags win. `WARREN_LOG` sets the log filter (`info`), such as `debug` or `warren_node=debug`.\n\n"
    );
    let all: Vec<&Arg> = arguments(up, false).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in &all {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    for heading in headings {
        writeln!(out, "## {}\n", heading.unwrap_or("The server")).unwrap();
        let some: Vec<&Arg> = all
            .iter()
            .copied()
            .filter(|argument| argument.get_help_heading() == heading)
            .collect();
        table(&mut out, &some);
    }
    out
}

/// Every operation of the API, and whether it is built.
fn api() -> String {
    let mut operations = warren_api::operations();
    operations.sort_by(|a, b| (a.path, a.method.as_str()).cmp(&(b.path, b.method.as_str())));
    let built = operations.iter().filter(|one| one.is_built).count();
    let mut out = format!(
        "# Coverage of the API\n\n{NOTE}{built} of {} operations are built; the others answer 501 and name themselves. What differs from E2B's cloud: [compatibility](../compatibility.md).\n\n| operation | |\n| --- | --- |\n",
        operations.len()
    );
    for one in &operations {
        let state = if one.is_built { "built" } else { "501" };
        writeln!(out, "| `{} {}` | {state} |", one.method, one.path).unwrap();
    }
    out
}

#[test]
fn the_reference_is_that_of_the_code() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let pages = [
        ("cli.md", cli()),
        ("configuration.md", configuration()),
        ("api.md", api()),
    ];
    let is_update = std::env::var_os("WARREN_WRITE_REFERENCE").is_some();
    for (name, text) in pages {
        let path = directory.join(name);
        let text = format!("{}\n", text.trim_end());
        if is_update {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "docs/reference/{name} is stale: run `cargo xtask docs-reference`"
        );
    }
}
