//! Templates as programs for the official SDKs.

use std::fmt::Write;

use serde_json::Value;

use super::recipe::{CopyOptions, Source, Step, Template};

/// A language, and for Python a manner, to write a program in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceLanguage {
    /// TypeScript, for the package `e2b` of npm.
    TypeScript,
    /// Python, for the package `e2b` of PyPI.
    Python,
    /// The same with `async`.
    AsyncPython,
}

impl Template {
    /// Writes the template as a module that defines `template` with the builder of the
    /// official SDK of a language. An image in a file has no such form and is left out.
    #[must_use]
    pub fn to_source(&self, language: SourceLanguage) -> String {
        let writer = Writer { language };
        let calls: Vec<String> = self.calls(writer);
        match language {
            SourceLanguage::TypeScript => {
                let mut out = "import { Template } from 'e2b'\n\n".to_owned();
                out.push_str("export const template = Template()");
                for call in calls {
                    // Writing to a string can't fail.
                    write!(out, "\n  .{call}").ok();
                }
                out.push('\n');
                out
            }
            SourceLanguage::Python | SourceLanguage::AsyncPython => {
                let class = writer.class();
                let mut out = format!("from e2b import {class}\n\ntemplate = (\n    {class}()\n");
                for call in calls {
                    writeln!(out, "    .{call}").ok();
                }
                out.push_str(")\n");
                out
            }
        }
    }

    fn calls(&self, writer: Writer) -> Vec<String> {
        let mut calls = Vec::new();
        match &self.source {
            Source::Image(name) => calls.push(writer.call("from_image", &[text(name)])),
            Source::Template(name) => calls.push(writer.call("from_template", &[text(name)])),
            Source::Archive(_) => {}
        }
        let mut skipped = false;
        for (step, skip) in &self.steps {
            if *skip && !skipped {
                skipped = true;
                calls.push(writer.call("skip_cache", &[]));
            }
            calls.push(writer.step(step));
        }
        match (&self.start, &self.ready) {
            (Some(start), Some(ready)) => {
                calls.push(writer.call("set_start_cmd", &[text(start), text(ready)]));
            }
            (_, Some(ready)) => calls.push(writer.call("set_ready_cmd", &[text(ready)])),
            _ => {}
        }
        calls
    }
}

/// A string literal of all three languages: their escapes include those of JSON.
fn text(value: &str) -> String {
    Value::from(value).to_string()
}

#[derive(Debug, Clone, Copy)]
struct Writer {
    language: SourceLanguage,
}

impl Writer {
    fn is_python(self) -> bool {
        self.language != SourceLanguage::TypeScript
    }

    fn class(self) -> &'static str {
        match self.language {
            SourceLanguage::AsyncPython => "AsyncTemplate",
            _ => "Template",
        }
    }

    /// A call of a method, whose name is given as in Python.
    fn call(self, name: &str, arguments: &[String]) -> String {
        let name = if self.is_python() {
            name.to_owned()
        } else {
            camel(name)
        };
        format!("{name}({})", arguments.join(", "))
    }

    /// Named arguments, given as in Python; nothing if there are none.
    fn named(self, pairs: &[(&str, String)]) -> Option<String> {
        if pairs.is_empty() {
            return None;
        }
        let shown: Vec<String> = pairs
            .iter()
            .map(|(name, value)| {
                if self.is_python() {
                    format!("{name}={value}")
                } else {
                    format!("{}: {value}", camel(name))
                }
            })
            .collect();
        let shown = shown.join(", ");
        Some(if self.is_python() {
            shown
        } else {
            format!("{{ {shown} }}")
        })
    }

    fn step(self, step: &Step) -> String {
        match step {
            Step::Run { command, user } => {
                let user: Vec<_> = user.iter().map(|user| ("user", text(user))).collect();
                let mut arguments = vec![text(command)];
                arguments.extend(self.named(&user));
                self.call("run_cmd", &arguments)
            }
            Step::Copy {
                source,
                target,
                options,
            } => {
                let mut arguments = vec![text(source), text(target)];
                arguments.extend(self.named(&self.copy_options(options)));
                self.call("copy", &arguments)
            }
            Step::Env(pairs) => {
                let pairs: Vec<String> = pairs
                    .iter()
                    .map(|(name, value)| format!("{}: {}", text(name), text(value)))
                    .collect();
                self.call("set_envs", &[format!("{{ {} }}", pairs.join(", "))])
            }
            Step::Workdir(dir) => self.call("set_workdir", &[text(dir)]),
            Step::User(name) => self.call("set_user", &[text(name)]),
        }
    }

    fn copy_options(self, options: &CopyOptions) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        if let Some(owner) = &options.owner {
            pairs.push(("user", text(owner)));
        }
        if let Some(mode) = options.mode {
            pairs.push(("mode", format!("0o{mode:o}")));
        }
        if options.force_upload {
            let yes = if self.is_python() { "True" } else { "true" };
            pairs.push(("force_upload", yes.to_owned()));
        }
        pairs
    }
}

/// `set_start_cmd` as `setStartCmd`.
fn camel(name: &str) -> String {
    let mut out = String::new();
    let mut words = name.split('_');
    out.push_str(words.next().unwrap_or_default());
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Template {
        let options = CopyOptions {
            owner: Some("user:user".to_owned()),
            mode: Some(0o755),
            force_upload: true,
        };
        Template::from_image("debian:stable")
            .user("root")
            .workdir("/app")
            .env([("A", "it's \"quoted\""), ("B", "")])
            .copy("src", "/app/", options)
            .run("echo 'a' \"b\" \\\n  c")
            .run_as("root", "true")
            .start("sudo serve", "sleep 20")
    }

    #[test]
    fn a_template_is_a_module_of_typescript() {
        assert_eq!(
            example().to_source(SourceLanguage::TypeScript),
            r#"import { Template } from 'e2b'

export const template = Template()
  .fromImage("debian:stable")
  .setUser("root")
  .setWorkdir("/app")
  .setEnvs({ "A": "it's \"quoted\"", "B": "" })
  .copy("src", "/app/", { user: "user:user", mode: 0o755, forceUpload: true })
  .runCmd("echo 'a' \"b\" \\\n  c")
  .runCmd("true", { user: "root" })
  .setStartCmd("sudo serve", "sleep 20")
"#
        );
    }

    #[test]
    fn a_template_is_a_module_of_python() {
        assert_eq!(
            example().to_source(SourceLanguage::Python),
            r#"from e2b import Template

template = (
    Template()
    .from_image("debian:stable")
    .set_user("root")
    .set_workdir("/app")
    .set_envs({ "A": "it's \"quoted\"", "B": "" })
    .copy("src", "/app/", user="user:user", mode=0o755, force_upload=True)
    .run_cmd("echo 'a' \"b\" \\\n  c")
    .run_cmd("true", user="root")
    .set_start_cmd("sudo serve", "sleep 20")
)
"#
        );
        let ready = Template::from_template("base")
            .skip_cache()
            .run("x")
            .ready("r");
        assert_eq!(
            ready.to_source(SourceLanguage::AsyncPython),
            "from e2b import AsyncTemplate\n\ntemplate = (\n    AsyncTemplate()\n    .from_template(\"base\")\n    .skip_cache()\n    .run_cmd(\"x\")\n    .set_ready_cmd(\"r\")\n)\n"
        );
    }
}
