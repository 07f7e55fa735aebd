//! From the SDK's settings to commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::catalog::{self, Arg, Entry, Registry};

/// Servers in one sandbox.
const MAX_SERVERS: usize = 64;
/// Begins the names of servers that are run from a repository.
const GITHUB: &str = "github/";

/// A server to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Its name in the settings.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables beside those of the gateway.
    pub env: BTreeMap<String, String>,
    /// Where it runs; `None` for where the gateway does.
    pub dir: Option<PathBuf>,
    /// What has to be done once before, in this order.
    pub prepare: Vec<Step>,
}

/// A command that prepares a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub dir: Option<PathBuf>,
    /// Done already where this exists.
    pub unless: Option<PathBuf>,
}

/// Why there is nothing to start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of settings.
    #[error("the settings are no JSON object of servers")]
    Json(#[source] serde_json::Error),
    /// Nothing to start.
    #[error("the settings name no server")]
    Empty,
    /// Too much to start.
    #[error("the settings name more than {MAX_SERVERS} servers")]
    TooMany,
    /// No package is known.
    #[error(
        "the server {name:?} can't be had here: no package of npm or PyPI is known for it. \
         There are: {}. Others run as \"github/OWNER/REPO\" with a runCmd",
        known()
    )]
    Unavailable {
        /// Which.
        name: String,
    },
    /// The settings of a server lack something.
    #[error("the server {name:?} needs the setting {setting:?}")]
    Missing {
        /// Which server.
        name: String,
        /// Which setting.
        setting: &'static str,
    },
    /// A setting is of a wrong type.
    #[error("the settings of the server {name:?} are not of the right form")]
    Form {
        /// Which.
        name: String,
        /// The cause.
        #[source]
        cause: serde_json::Error,
    },
    /// Not a repository's name.
    #[error("{name:?} is not of the form \"github/OWNER/REPO\"")]
    Repository {
        /// What was given.
        name: String,
    },
}

fn known() -> String {
    let names: Vec<_> = catalog::ENTRIES.iter().map(|entry| entry.name).collect();
    names.join(", ")
}

/// How a server in a repository is run; Python's and JavaScript's spelling.
#[derive(Debug, Deserialize)]
struct Repository {
    #[serde(alias = "runCmd")]
    run_cmd: String,
    #[serde(alias = "installCmd", default)]
    install_cmd: Option<String>,
    #[serde(default)]
    envs: BTreeMap<String, String>,
}

/// Reads settings. `repositories` is where those of servers are kept.
///
/// # Errors
/// [`ConfigError`]
pub fn read(config: &str, repositories: &Path) -> Result<Vec<ServerSpec>, ConfigError> {
    let servers: Map<String, Value> = serde_json::from_str(config).map_err(ConfigError::Json)?;
    match servers.len() {
        0 => return Err(ConfigError::Empty),
        count if count > MAX_SERVERS => return Err(ConfigError::TooMany),
        _ => {}
    }
    servers
        .into_iter()
        .map(|(name, settings)| server(name, settings, repositories))
        .collect()
}

fn server(name: String, settings: Value, repositories: &Path) -> Result<ServerSpec, ConfigError> {
    if name.starts_with(GITHUB) {
        return repository(name, settings, repositories);
    }
    let Some(entry) = catalog::find(&name) else {
        return Err(ConfigError::Unavailable { name });
    };
    let settings: Map<String, Value> = match settings {
        Value::Null => Map::new(),
        settings => serde_json::from_value(settings).map_err(|cause| ConfigError::Form {
            name: name.clone(),
            cause,
        })?,
    };
    for setting in entry.required {
        if text(settings.get(*setting)).is_none() {
            return Err(ConfigError::Missing { name, setting });
        }
    }
    let mut command = runner(entry);
    for arg in entry.args {
        match arg {
            Arg::Word(word) => command.push((*word).to_owned()),
            Arg::Setting(prefix, key) => {
                command.extend(text(settings.get(*key)).map(|value| format!("{prefix}{value}")));
            }
            Arg::Each(words, key) => {
                let values = settings.get(*key).and_then(Value::as_array);
                for value in values.into_iter().flatten().filter_map(|v| text(Some(v))) {
                    command.extend(words.iter().map(ToString::to_string));
                    command.push(value);
                }
            }
        }
    }
    let env = entry
        .env
        .iter()
        .filter_map(|(variable, key)| Some(((*variable).to_owned(), text(settings.get(*key))?)));
    Ok(ServerSpec {
        env: env.collect(),
        name,
        command,
        dir: None,
        prepare: Vec::new(),
    })
}

/// What runs a package, fetching it if need be.
fn runner(entry: &Entry) -> Vec<String> {
    let words: &[&str] = match entry.registry {
        // What was pulled is not asked for again.
        Registry::Npm => &["npx", "--yes", "--prefer-offline", entry.package],
        Registry::Pypi if is_installed(entry.package) => &[entry.package],
        Registry::Pypi => &["pipx", "run", entry.package],
    };
    words.iter().map(ToString::to_string).collect()
}

/// Whether a program is in one of the directories that programs are looked for in.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The commands that put the packages of these servers into the caches.
///
/// # Errors
/// [`ConfigError::Unavailable`]
pub(crate) fn fetching(names: &[String]) -> Result<Vec<Vec<String>>, ConfigError> {
    let fetch = |name: &String| {
        let entry =
            catalog::find(name).ok_or_else(|| ConfigError::Unavailable { name: name.clone() })?;
        let words: &[&str] = match entry.registry {
            // Into the cache of npx.
            Registry::Npm => &["npx", "--yes", "--package", entry.package, "--", "true"],
            Registry::Pypi => &["pipx", "install", entry.package],
        };
        Ok(words.iter().map(ToString::to_string).collect())
    };
    names.iter().map(fetch).collect()
}

fn repository(
    name: String,
    settings: Value,
    repositories: &Path,
) -> Result<ServerSpec, ConfigError> {
    let path = name.strip_prefix(GITHUB).unwrap_or_default();
    let is_plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let (owner, repo) = match path.split_once('/') {
        Some((owner, repo)) if is_plain(owner) && is_plain(repo) => (owner, repo),
        _ => return Err(ConfigError::Repository { name }),
    };
    let settings: Repository =
        serde_json::from_value(settings).map_err(|cause| ConfigError::Form {
            name: name.clone(),
            cause,
        })?;
    let dir = repositories.join(owner).join(repo);
    let url = format!("https://github.com/{owner}/{repo}.git");
    let target = dir.to_string_lossy().into_owned();
    let clone = ["git", "clone", "--quiet", "--depth=1", &url, &target];
    let mut prepare = vec![Step {
        command: clone.map(str::to_owned).into(),
        dir: None,
        unless: Some(dir.clone()),
    }];
    let shell = |command: String| vec!["/bin/sh".to_owned(), "-c".to_owned(), command];
    prepare.extend(settings.install_cmd.map(|command| Step {
        command: shell(command),
        dir: Some(dir.clone()),
        unless: None,
    }));
    Ok(ServerSpec {
        name,
        command: shell(settings.run_cmd),
        env: settings.envs,
        dir: Some(dir),
        prepare,
    })
}

/// A setting as text; empty counts as absent.
fn text(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(config: &str) -> Result<ServerSpec, ConfigError> {
        read(config, Path::new("/r")).map(|mut servers| servers.remove(0))
    }

    #[test]
    fn settings_become_arguments_and_variables() {
        let files = one(r#"{"filesystem": {"paths": ["/a", "/b c"]}}"#).unwrap();
        let package = "@modelcontextprotocol/server-filesystem";
        assert_eq!(
            files.command,
            ["npx", "--yes", "--prefer-offline", package, "/a", "/b c"]
        );
        let git = one(r#"{"git": {"paths": ["/a"]}}"#).unwrap();
        assert_eq!(
            git.command,
            ["pipx", "run", "mcp-server-git", "--repository", "/a"]
        );
        let brave = one(r#"{"brave": {"apiKey": "k"}}"#).unwrap();
        assert_eq!(brave.env["BRAVE_API_KEY"], "k");
        let stripe = one(r#"{"stripe": {"secretKey": "k"}}"#).unwrap();
        assert!(stripe.command.contains(&"--api-key=k".to_owned()));
        let redis = one(r#"{"redis": {"host": "h", "port": 1, "ssl": true}}"#).unwrap();
        assert_eq!(redis.env["REDIS_PORT"], "1");
        assert_eq!(redis.env["REDIS_SSL"], "true");
        for empty in [r#"{"time": {}}"#, r#"{"time": null}"#] {
            assert_eq!(
                one(empty).unwrap().command,
                ["pipx", "run", "mcp-server-time"]
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (config, words) in [
            ("[]", "no JSON object"),
            ("{}", "no server"),
            (r#"{"sonarqube": {}}"#, "\"sonarqube\" can't be had"),
            (r#"{"brave": {}}"#, "\"brave\" needs the setting \"apiKey\""),
            (r#"{"brave": {"apiKey": ""}}"#, "\"apiKey\""),
            (r#"{"brave": 1}"#, "\"brave\" are not of the right form"),
            (r#"{"github/x": {"runCmd": "a"}}"#, "github/OWNER/REPO"),
            (r#"{"github/../x": {"runCmd": "a"}}"#, "github/OWNER/REPO"),
            (r#"{"github/a/b/c": {"runCmd": "a"}}"#, "github/OWNER/REPO"),
            (r#"{"github/a/b": {}}"#, "\"github/a/b\" are not"),
        ] {
            let error = one(config).unwrap_err().to_string();
            assert!(error.contains(words), "{config}: {error}");
        }
    }

    #[test]
    fn a_repository_is_cloned_prepared_and_run_in_its_directory() {
        let both = [
            r#"{"github/o/r.x": {"runCmd": "run", "installCmd": "make", "envs": {"A": "1"}}}"#,
            r#"{"github/o/r.x": {"run_cmd": "run", "install_cmd": "make", "envs": {"A": "1"}}}"#,
        ];
        for config in both {
            let spec = one(config).unwrap();
            assert_eq!(spec.command, ["/bin/sh", "-c", "run"]);
            assert_eq!(spec.dir.as_deref(), Some(Path::new("/r/o/r.x")));
            assert_eq!(spec.env["A"], "1");
            assert_eq!(spec.prepare[0].command[4], "https://github.com/o/r.x.git");
            assert_eq!(spec.prepare[1].command[2], "make");
        }
    }
}
