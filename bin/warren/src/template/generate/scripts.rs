//! The texts around a template: build scripts, how to run them, a README.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{Language, Resources};
use crate::template::ordered::Node;

/// What builds the template for trying, and for use.
const SCRIPTS: [&str; 2] = ["e2b:build:dev", "e2b:build:prod"];

/// The template's file and those of the scripts.
pub(super) fn names(language: Language) -> [&'static str; 3] {
    match language {
        Language::Typescript => ["template.ts", "build.dev.ts", "build.prod.ts"],
        Language::PythonSync | Language::PythonAsync => {
            ["template.py", "build_dev.py", "build_prod.py"]
        }
    }
}

/// How the SDK is installed.
pub(super) fn install(language: Language) -> &'static str {
    match language {
        Language::Typescript => "npm install e2b",
        Language::PythonSync | Language::PythonAsync => "pip install e2b",
    }
}

/// How the template is built.
pub(super) fn build(language: Language) -> &'static str {
    match language {
        Language::Typescript => "npm run e2b:build:dev",
        Language::PythonSync | Language::PythonAsync => "make e2b:build:dev",
    }
}

/// A script that builds the template under a name.
pub(super) fn script(language: Language, name: &str, resources: &Resources) -> String {
    let figures = |cpu: &str, memory: &str, joint: &str, indent: &str| {
        let mut lines = String::new();
        for (key, value) in [(cpu, resources.cpu_count), (memory, resources.memory_mib)] {
            if let Some(value) = value {
                lines.push_str(&format!("{indent}{key}{joint}{value},\n"));
            }
        }
        lines
    };
    match language {
        Language::Typescript => {
            let figures = figures("cpuCount", "memoryMB", ": ", "    ");
            format!(
                "import {{ Template, defaultBuildLogger }} from 'e2b'\nimport {{ template }} from './template'\n\nasync function main() {{\n  await Template.build(template, '{name}', {{\n{figures}    onBuildLogs: defaultBuildLogger(),\n  }})\n}}\n\nmain().catch((error) => {{\n  console.error(error)\n  process.exitCode = 1\n}})\n"
            )
        }
        Language::PythonSync => {
            let figures = figures("cpu_count", "memory_mb", "=", "        ");
            format!(
                "from e2b import Template, default_build_logger\n\nfrom template import template\n\nif __name__ == \"__main__\":\n    Template.build(\n        template,\n        \"{name}\",\n{figures}        on_build_logs=default_build_logger(),\n    )\n"
            )
        }
        Language::PythonAsync => {
            let figures = figures("cpu_count", "memory_mb", "=", "        ");
            format!(
                "import asyncio\n\nfrom e2b import AsyncTemplate, default_build_logger\n\nfrom template import template\n\n\nasync def main() -> None:\n    await AsyncTemplate.build(\n        template,\n        \"{name}\",\n{figures}        on_build_logs=default_build_logger(),\n    )\n\n\nif __name__ == \"__main__\":\n    asyncio.run(main())\n"
            )
        }
    }
}

/// Adds the scripts to the `package.json` or `Makefile` of the root if there is one, else
/// makes one beside the template. Returns which.
pub(super) fn add(
    root: &Path,
    dir: &Path,
    name: &str,
    language: Language,
) -> anyhow::Result<PathBuf> {
    let file = match language {
        Language::Typescript => "package.json",
        Language::PythonSync | Language::PythonAsync => "Makefile",
    };
    let outer = root.join(file);
    let (path, text) = match fs::read_to_string(&outer) {
        Ok(text) => (outer, Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (dir.join(file), None),
        Err(error) => return Err(error).with_context(|| format!("read {}", outer.display())),
    };
    let prefix = if text.is_some() && root != dir {
        format!("cd {name} && ")
    } else {
        String::new()
    };
    let [_, dev, prod] = names(language);
    let told = || format!("write {}", path.display());
    let text = match language {
        Language::Typescript => {
            let text = text.unwrap_or_else(|| "{}".to_owned());
            let mut package: Node =
                serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
            let scripts = package
                .object("scripts")
                .with_context(|| format!("{} is not what npm wants it to be", path.display()))?;
            for (script, file) in SCRIPTS.iter().zip([dev, prod]) {
                scripts.set(script, &format!("{prefix}npx tsx {file}"));
            }
            serde_json::to_string_pretty(&package)? + "\n"
        }
        Language::PythonSync | Language::PythonAsync => {
            let mut text = text.unwrap_or_default();
            for (script, file) in SCRIPTS.iter().zip([dev, prod]) {
                let target = script.replace(':', "\\:");
                text.push_str(&format!(
                    "\n.PHONY: {target}\n{target}:\n\t{prefix}python {file}\n"
                ));
            }
            text
        }
    };
    fs::write(&path, text).with_context(told)?;
    Ok(path)
}

/// What the directory of a new template says of itself.
pub(super) fn readme(name: &str, language: Language) -> String {
    let [main, dev, prod] = names(language);
    let (fence, example) = match language {
        Language::Typescript => (
            "typescript",
            format!(
                "import {{ Sandbox }} from 'e2b'\n\nconst sandbox = await Sandbox.create('{name}')"
            ),
        ),
        Language::PythonSync => (
            "python",
            format!("from e2b import Sandbox\n\nsandbox = Sandbox.create(\"{name}\")"),
        ),
        Language::PythonAsync => (
            "python",
            format!(
                "from e2b import AsyncSandbox\n\nsandbox = await AsyncSandbox.create(\"{name}\")"
            ),
        ),
    };
    let (install, build) = (install(language), build(language));
    format!(
        "# {name}\n\nA template of sandboxes. `{main}` describes it; `{dev}` builds it as `{name}-dev` for trying, and `{prod}` as `{name}`.\n\nSet `E2B_API_KEY` and, for a server of your own, `E2B_API_URL` and `E2B_SANDBOX_URL`. Then:\n\n```bash\n{install}\n{build}\n```\n\nSandboxes of it:\n\n```{fence}\n{example}\n```\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_added_to_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (root, inner) = (dir.path(), dir.path().join("t"));
        fs::create_dir(&inner).unwrap();
        let package = root.join("package.json");
        fs::write(
            &package,
            "{\n  \"name\": \"z\",\n  \"scripts\": { \"a\": \"b\" },\n  \"author\": \"x\"\n}\n",
        )
        .unwrap();
        assert_eq!(
            add(root, &inner, "t", Language::Typescript).unwrap(),
            package
        );
        assert_eq!(
            fs::read_to_string(&package).unwrap(),
            "{\n  \"name\": \"z\",\n  \"scripts\": {\n    \"a\": \"b\",\n    \"e2b:build:dev\": \"cd t && npx tsx build.dev.ts\",\n    \"e2b:build:prod\": \"cd t && npx tsx build.prod.ts\"\n  },\n  \"author\": \"x\"\n}\n"
        );
        let makefile = root.join("Makefile");
        fs::write(&makefile, "all:\n\ttrue\n").unwrap();
        add(root, &inner, "t", Language::PythonSync).unwrap();
        let text = fs::read_to_string(&makefile).unwrap();
        assert!(
            text.starts_with("all:\n\ttrue\n\n.PHONY: e2b\\:build\\:dev\n"),
            "{text}"
        );
        assert!(text.ends_with("\tcd t && python build_prod.py\n"), "{text}");
    }

    #[test]
    fn a_package_that_is_no_object_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["[]", "{\"scripts\": 1}", "no json"] {
            fs::write(dir.path().join("package.json"), text).unwrap();
            assert!(
                add(dir.path(), dir.path(), "t", Language::Typescript).is_err(),
                "{text}"
            );
        }
    }
}
