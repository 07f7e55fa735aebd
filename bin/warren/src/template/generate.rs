//! Templates as programs for an SDK: `template init` and `template migrate`.

mod scripts;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;
use warren_client::{SourceLanguage, Template};

use super::build::{dockerfile, template_name};
use super::project::{self, Project};
use crate::ask;
use crate::cli::template::{Init, Language, Limits, Migrate};
use crate::print::{self, line, warning};

const DEFAULT_NAME: &str = "my-template";
const DOCKERFILE: &str = "e2b.Dockerfile";
/// Stands for what a Dockerfile says that can't be converted.
const UNKNOWN_IMAGE: &str = "my-custom-image";

impl Language {
    const ALL: [Self; 3] = [Self::Typescript, Self::PythonSync, Self::PythonAsync];

    fn title(self) -> &'static str {
        match self {
            Self::Typescript => "TypeScript",
            Self::PythonSync => "Python (sync)",
            Self::PythonAsync => "Python (async)",
        }
    }

    fn source(self) -> SourceLanguage {
        match self {
            Self::Typescript => SourceLanguage::TypeScript,
            Self::PythonSync => SourceLanguage::Python,
            Self::PythonAsync => SourceLanguage::AsyncPython,
        }
    }
}

fn language(given: Option<Language>) -> anyhow::Result<Language> {
    if let Some(language) = given {
        return Ok(language);
    }
    let titles = Language::ALL.map(|one| one.title().to_owned());
    let index = ask::one("Language of the template", &titles, "--language")?;
    Language::ALL
        .get(index)
        .copied()
        .context("choose a language")
}

/// A file that is to be made.
#[derive(Debug)]
struct NewFile {
    path: PathBuf,
    text: String,
}

fn paths(files: &[NewFile]) -> Vec<&Path> {
    files.iter().map(|file| file.path.as_path()).collect()
}

/// Makes files, or none if one of them is there already.
fn create(files: &[NewFile]) -> anyhow::Result<()> {
    if let Some(taken) = files.iter().find(|file| file.path.exists()) {
        bail!(
            "{} is there already\nhint: move it away, or name another directory with --path",
            taken.path.display()
        );
    }
    for file in files {
        let told = || format!("write {}", file.path.display());
        fs::write(&file.path, &file.text).with_context(told)?;
    }
    Ok(())
}

/// `warren template init`.
pub(super) fn init(args: Init, as_json: bool) -> anyhow::Result<ExitCode> {
    if args.dockerfile {
        let path = args.path.join(DOCKERFILE);
        let text = "FROM e2bdev/base\n\nRUN echo 'Hello from the template'\n".to_owned();
        create(&[NewFile {
            path: path.clone(),
            text,
        }])?;
        let value = json!({ "created": [path] });
        print::done(as_json, &value, &format!("Created {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = match args.name.or(args.positional) {
        Some(name) => name,
        None => ask::text("Name of the template", DEFAULT_NAME, "--name")?,
    };
    let name = template_name(&name)?;
    let language = language(args.language)?;
    let dir = args.path.join(&name);
    fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let template = Template::from_image("e2bdev/base").run("echo Hello World E2B!");
    let mut files = programs(&dir, &name, language, &template, &Resources::default());
    files.push(NewFile {
        path: dir.join("README.md"),
        text: scripts::readme(&name, language),
    });
    create(&files)?;
    let scripts = scripts::add(&args.path, &dir, &name, language)?;
    if as_json {
        print::json(&json!({ "name": name, "created": paths(&files), "scripts": scripts }))?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!(
        "Created the template {name} in {}, in {}:",
        dir.display(),
        language.title()
    ))?;
    for file in &files {
        line(&format!("  {}", file.path.display()))?;
    }
    line(&format!("Added build scripts to {}", scripts.display()))?;
    line(&format!(
        "\nNext:\n  {}\n  {}",
        scripts::install(language),
        scripts::build(language)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// What the build scripts ask for.
#[derive(Debug, Default)]
struct Resources {
    cpu_count: Option<u32>,
    memory_mib: Option<u32>,
}

/// The template and the scripts that build it.
fn programs(
    dir: &Path,
    name: &str,
    language: Language,
    template: &Template,
    resources: &Resources,
) -> Vec<NewFile> {
    let [main, dev, prod] = scripts::names(language);
    let file = |file: &str, text| NewFile {
        path: dir.join(file),
        text,
    };
    let script = |name: &str| scripts::script(language, name, resources);
    vec![
        file(main, template.to_source(language.source())),
        file(dev, script(&format!("{name}-dev"))),
        file(prod, script(name)),
    ]
}

/// `warren template migrate`.
pub(super) fn migrate(args: Migrate, as_json: bool) -> anyhow::Result<ExitCode> {
    let language = language(args.language)?;
    migrated(args, language, as_json).context("Migration failed")?;
    Ok(ExitCode::SUCCESS)
}

fn migrated(args: Migrate, language: Language, as_json: bool) -> anyhow::Result<()> {
    let root = args.recipe.path.clone();
    let config = root.join(&args.config);
    let read = project::read(&config)?;
    if read.is_none() {
        warning(&format!(
            "warning: no {}; defaults are used",
            config.display()
        ));
    }
    let has_config = read.is_some();
    let project = read.unwrap_or_default();
    let name = args.name.or_else(|| project.reference());
    let name = match name {
        Some(name) => template_name(&name)?,
        None => template_name(&ask::text("Name of the template", DEFAULT_NAME, "--name")?)?,
    };
    let mut recipe = args.recipe;
    recipe.dockerfile = recipe
        .dockerfile
        .or_else(|| project.dockerfile.as_ref().map(PathBuf::from));
    let (file, text) = dockerfile(&recipe)?;
    let template = converted(&text, &recipe.start, &recipe.ready, &project);
    let Limits {
        cpu_count,
        memory_mib,
        ..
    } = recipe.limits;
    let resources = Resources {
        cpu_count: cpu_count.or(project.cpu_count),
        memory_mib: memory_mib.or(project.memory_mb),
    };
    let files = programs(&root, &name, language, &template, &resources);
    create(&files)?;
    let scripts = scripts::add(&root, &root, &name, language)?;
    let mut old = vec![root.join(&file)];
    old.extend(has_config.then_some(config));
    let mut renamed = Vec::new();
    for path in old {
        let mut kept = path.clone().into_os_string();
        kept.push(".old");
        fs::rename(&path, &kept).with_context(|| format!("rename {}", path.display()))?;
        renamed.push((path, PathBuf::from(kept)));
    }
    if as_json {
        let kept: Vec<_> = renamed.iter().map(|(_, kept)| kept).collect();
        let created = paths(&files);
        return print::json(
            &json!({ "name": name, "created": created, "scripts": scripts, "renamedTo": kept }),
        );
    }
    for (path, kept) in renamed {
        line(&format!("Renamed {} to {}", path.display(), kept.display()))?;
    }
    for file in files {
        line(&format!("Created {}", file.path.display()))?;
    }
    line(&format!("Added build scripts to {}", scripts.display()))?;
    line(&format!("\nBuild it with `{}`.", scripts::build(language)))?;
    Ok(())
}

/// The template of a Dockerfile. Start commands ran as root under the first generation.
fn converted(
    text: &str,
    start: &Option<String>,
    ready: &Option<String>,
    project: &Project,
) -> Template {
    let mut template = match Template::from_dockerfile(text) {
        Ok((template, notes)) => {
            for note in notes {
                warning(&format!("warning: {note}"));
            }
            template
        }
        Err(error) => {
            warning(&format!(
                "warning: the Dockerfile can't be converted: {error}\nwarning: build it yourself and name the image in place of {UNKNOWN_IMAGE}"
            ));
            Template::from_image(UNKNOWN_IMAGE)
        }
    };
    let start = start.as_ref().or(project.start_cmd.as_ref());
    let ready = ready.as_ref().or(project.ready_cmd.as_ref());
    match (start, ready) {
        (Some(start), ready) => {
            let ready = ready.map_or("sleep 20", String::as_str);
            template = template.start(format!("sudo {start}"), ready);
        }
        (None, Some(ready)) => template = template.ready(ready),
        (None, None) => {}
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::template::Recipe;

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn init_in(dir: &Path, name: &str, language: Language) -> anyhow::Result<ExitCode> {
        init(
            Init {
                positional: Some(name.to_owned()),
                name: None,
                path: dir.to_owned(),
                language: Some(language),
                dockerfile: false,
            },
            false,
        )
    }

    fn migrate_in(dir: &Path) -> anyhow::Result<ExitCode> {
        migrate(
            Migrate {
                name: None,
                config: "e2b.toml".into(),
                language: Some(Language::PythonSync),
                recipe: Recipe {
                    path: dir.to_owned(),
                    dockerfile: None,
                    start: None,
                    ready: None,
                    limits: Limits {
                        cpu_count: None,
                        memory_mib: None,
                        min_free_disk_mib: None,
                        no_cache: false,
                    },
                },
            },
            false,
        )
    }

    #[test]
    fn a_new_template_has_a_directory_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        init_in(dir.path(), "One", Language::Typescript).unwrap();
        init_in(dir.path(), "two", Language::PythonAsync).unwrap();
        assert_eq!(
            files(&dir.path().join("one")),
            [
                "README.md",
                "build.dev.ts",
                "build.prod.ts",
                "package.json",
                "template.ts"
            ]
        );
        assert_eq!(
            files(&dir.path().join("two")),
            [
                "Makefile",
                "README.md",
                "build_dev.py",
                "build_prod.py",
                "template.py"
            ]
        );
        assert!(init_in(dir.path(), "two", Language::PythonSync).is_err());
        assert!(init_in(dir.path(), "a b", Language::PythonSync).is_err());
    }

    #[test]
    fn a_project_is_migrated_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::write(root.join("e2b.Dockerfile"), "FROM x\nRUN echo \"it's\"\n").unwrap();
        let toml =
            "template_id = \"i\"\ntemplate_name = \"n\"\nstart_cmd = \"serve\"\ncpu_count = 4\n";
        fs::write(root.join("e2b.toml"), toml).unwrap();
        migrate_in(root).unwrap();
        assert_eq!(
            files(root),
            [
                "Makefile",
                "build_dev.py",
                "build_prod.py",
                "e2b.Dockerfile.old",
                "e2b.toml.old",
                "template.py"
            ]
        );
        let template = fs::read_to_string(root.join("template.py")).unwrap();
        assert!(
            template.contains(r#".run_cmd("echo \"it's\"")"#),
            "{template}"
        );
        assert!(template.contains(r#".set_start_cmd("sudo serve", "sleep 20")"#));
        let build = fs::read_to_string(root.join("build_prod.py")).unwrap();
        assert!(
            build.contains("\"n\"") && build.contains("cpu_count=4"),
            "{build}"
        );
        fs::write(root.join("Dockerfile"), "FROM x\nFROM y\n").unwrap();
        let error = format!("{:#}", migrate_in(root).unwrap_err());
        assert!(error.starts_with("Migration failed"), "{error}");
    }
}
