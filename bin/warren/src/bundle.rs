//! `warren bundle`: the program and its templates in one file, for machines without a
//! network.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use warren_runtime::ns::{SHARED_TOOLS, TOOLS, TOOLS_ROOT};
use warren_template::bundle::{self, Contents, Destination};
use warren_template::interpreter::{self, Variant};
use warren_template::{LayerStore, base};

use crate::cli::bundle::{Bundle, BundleCommand};
use crate::cli::place::Places;
use crate::print::{self, warning};

/// The template that every server has.
const BASE: &str = "base";

/// Runs a command of the group.
pub(crate) fn run(args: Bundle, as_json: bool) -> anyhow::Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "layers belong to root\nhint: run it with sudo"
    );
    match args.command {
        BundleCommand::Create {
            file,
            templates,
            places,
        } => create(&file, templates, &places, as_json),
        BundleCommand::Install {
            file,
            bin_dir,
            no_program,
            places,
        } => {
            let program = bin_dir.join("warren");
            install(&file, (!no_program).then_some(&program), &places, as_json)
        }
    }
}

fn store(places: &Places) -> anyhow::Result<LayerStore> {
    let own = || places.data_dir.path.join("layers");
    let dir = places.layers_dir.clone().unwrap_or_else(own);
    Ok(LayerStore::open(&dir)?)
}

fn create(
    file: &Path,
    mut templates: Vec<String>,
    places: &Places,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let store = store(places)?;
    templates.sort();
    templates.dedup();
    let mut digests: Vec<String> = Vec::new();
    for name in &templates {
        let wanted = match Variant::of_name(name) {
            Some(variant) => interpreter::layers(variant),
            None if name == BASE => vec![base::Recipe::default().digest()],
            None => bail!(
                "{name} can't be packed\nhint: {BASE} and the templates of the code interpreter can; take others along with `warren template export`"
            ),
        };
        digests.extend(wanted);
    }
    // A server makes this one wherever it starts.
    digests.push(base::Recipe::default().digest());
    let mut layers = Vec::new();
    for digest in digests {
        if layers.iter().any(|(known, _)| *known == digest) {
            continue;
        }
        let path = store.get(&digest)?.with_context(|| {
            format!(
                "a layer of the templates is not in {}\nhint: have it made with `warren up --wait-templates --templates {}`",
                store.dir().display(),
                templates.join(",")
            )
        })?;
        layers.push((digest, path));
    }
    let tools = [places.data_dir.path.join(TOOLS), SHARED_TOOLS.into()];
    let mut roots = tools.into_iter().map(|dir| dir.join(TOOLS_ROOT));
    let tools = roots.find(|root| root.is_dir());
    if tools.is_none() {
        warning(
            "CRIU is not packed: prepare it with `warren doctor --fix` if pauses are to keep memory on the disk",
        );
    }
    let program = std::env::current_exe().context("find this program")?;
    let contents = Contents {
        program: &program,
        version: env!("CARGO_PKG_VERSION"),
        templates,
        layers,
        tools,
    };
    bundle::create(file, &contents, |path| {
        warning(&format!("packing {}", path.display()));
    })?;
    let value = json!({ "file": file, "templates": contents.templates });
    print::done(as_json, &value, &format!("Wrote {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn install(
    file: &Path,
    program: Option<&std::path::PathBuf>,
    places: &Places,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let store = store(places)?;
    let to = Destination {
        layers: &store,
        program: program.map(std::path::PathBuf::as_path),
        tools: &places.data_dir.path.join(TOOLS).join(TOOLS_ROOT),
    };
    let manifest = bundle::install(file, &to, |part| warning(&format!("installing {part}")))?;
    let text = format!(
        "Installed warren {} with {}",
        manifest.version,
        manifest.templates.join(", ")
    );
    let value = json!({ "version": manifest.version, "templates": manifest.templates });
    print::done(as_json, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}
