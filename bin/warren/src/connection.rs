//! From what the command line and the environment say to a client.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, bail};
use serde::Deserialize;
use warren_client::{Client, Config};

use crate::cli::connection::Connection;

/// Where a server on this machine listens unless told otherwise.
const LOCAL: &str = "http://127.0.0.1:3000";

/// Makes a client. Connects to nothing yet.
pub(crate) fn client(args: Connection) -> anyhow::Result<Client> {
    let key = api_key(args.api_key.as_deref(), home().as_deref(), &args.data_dir)?;
    let (api_url, sandbox_url) = urls(args.api_url, args.sandbox_url, args.domain);
    let mut config = Config::new(api_url, key);
    config.sandbox_url = sandbox_url;
    Ok(Client::new(config)?)
}

/// A hint for errors of the first call, when the server may not be there.
pub(crate) const NO_SERVER: &str =
    "reach the server\nhint: start one with `warren up`, or name it with --api-url (E2B_API_URL)";

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

fn urls(api: Option<String>, sandbox: Option<String>, domain: Option<String>) -> (String, String) {
    let under = |name: &str| {
        domain
            .as_ref()
            .map(|domain| format!("https://{name}.{domain}"))
    };
    let named = api.is_some();
    let api = api
        .or_else(|| under("api"))
        .unwrap_or_else(|| LOCAL.to_owned());
    let sandbox = sandbox
        .or_else(|| if named { None } else { under("sandbox") })
        .unwrap_or_else(|| api.clone());
    (api, sandbox)
}

/// What other clients of the API keep in `~/.e2b/config.json`, of both versions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SharedConfig {
    project_api_key: Option<String>,
    team_api_key: Option<String>,
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn api_key(given: Option<&str>, home: Option<&Path>, data_dir: &Path) -> anyhow::Result<String> {
    if let Some(key) = given.map(str::trim).filter(|key| !key.is_empty()) {
        return Ok(key.to_owned());
    }
    if let Some(path) = home.map(|home| home.join(".e2b/config.json"))
        && let Some(text) = read(&path)?
    {
        let config: SharedConfig = serde_json::from_str(&text).with_context(|| {
            format!(
                "read {}\nhint: mend or remove the file, or set E2B_API_KEY",
                path.display()
            )
        })?;
        if let Some(key) = config.project_api_key.or(config.team_api_key) {
            return Ok(key);
        }
    }
    if let Some(key) = read(&data_dir.join("api-key"))? {
        return Ok(key.trim().to_owned());
    }
    bail!(
        "no API key\nhint: set E2B_API_KEY; on the machine of the server, name its data directory with --data-dir"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_from_the_nearest_source() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(urls(None, None, None), (LOCAL.to_owned(), LOCAL.to_owned()));
        assert_eq!(
            urls(some("http://a"), None, some("d")),
            ("http://a".to_owned(), "http://a".to_owned())
        );
        assert_eq!(
            urls(None, None, some("d")),
            ("https://api.d".to_owned(), "https://sandbox.d".to_owned())
        );
        assert_eq!(urls(None, some("http://s"), some("d")).1, "http://s");
    }

    #[test]
    fn a_key_comes_from_the_flag_the_shared_file_or_the_local_server() {
        let dir = tempfile::tempdir().unwrap();
        let (home, data) = (dir.path().join("home"), dir.path().join("data"));
        assert!(api_key(None, Some(&home), &data).is_err());
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("api-key"), "local\n").unwrap();
        assert_eq!(api_key(None, Some(&home), &data).unwrap(), "local");
        fs::create_dir_all(home.join(".e2b")).unwrap();
        let file = home.join(".e2b/config.json");
        fs::write(&file, r#"{"version":1,"teamApiKey":"old"}"#).unwrap();
        assert_eq!(api_key(None, Some(&home), &data).unwrap(), "old");
        fs::write(&file, r#"{"version":2,"projectApiKey":"new"}"#).unwrap();
        assert_eq!(api_key(None, Some(&home), &data).unwrap(), "new");
        assert_eq!(api_key(Some("flag"), Some(&home), &data).unwrap(), "flag");
        fs::write(&file, "no json").unwrap();
        let error = format!("{:#}", api_key(None, Some(&home), &data).unwrap_err());
        assert!(error.contains("config.json"), "{error}");
    }
}
