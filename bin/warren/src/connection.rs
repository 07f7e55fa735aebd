//! From what the command line and the environment say to a client.

use std::path::Path;
use std::{env, fs, io};

use anyhow::{Context, bail};
use warren_client::{Client, Config, Error};

use crate::account;
use crate::cli::connection::Connection;
use crate::print::warning;

/// Where a server on this machine listens unless told otherwise.
const LOCAL: &str = "http://127.0.0.1:3000";

/// Makes a client. Connects to nothing yet.
pub(crate) fn client(args: Connection) -> anyhow::Result<Client> {
    Ok(Client::new(config(args)?)?)
}

/// Which server, and as whom.
pub(crate) fn config(args: Connection) -> anyhow::Result<Config> {
    if env::var_os("E2B_ACCESS_TOKEN").is_some_and(|token| !token.is_empty()) {
        warning(
            "E2B_ACCESS_TOKEN is not used any more; set E2B_API_KEY, or run `warren auth login`.",
        );
    }
    let home = account::home();
    let key = api_key(args.api_key.as_deref(), home.as_deref(), &args.data_dir)?;
    let (api_url, sandbox_url) = urls(&args, is_debug());
    let mut config = Config::new(api_url, key);
    config.sandbox_url = sandbox_url;
    Ok(config)
}

/// Adds a hint to the error of a call when the server was not reached.
pub(crate) fn reached(error: Error) -> anyhow::Error {
    match error {
        error @ Error::Transport { .. } => anyhow::Error::new(error).context(NO_SERVER),
        error => error.into(),
    }
}

/// A hint for errors of the first call, when the server may not be there.
pub(crate) const NO_SERVER: &str =
    "reach the server\nhint: start one with `warren up`, or name it with --api-url (E2B_API_URL)";

/// Whether the server is that of a developer, on this machine.
fn is_debug() -> bool {
    env::var("E2B_DEBUG").is_ok_and(|value| value.eq_ignore_ascii_case("true"))
}

/// URL of the API.
pub(crate) fn api_url(args: &Connection) -> String {
    urls(args, is_debug()).0
}

fn urls(args: &Connection, debug: bool) -> (String, String) {
    let domain = args.domain.as_ref().filter(|_| !debug);
    let under = |name: &str| domain.map(|domain| format!("https://{name}.{domain}"));
    let api = args.api_url.clone();
    let named = api.is_some();
    let api = api
        .or_else(|| under("api"))
        .unwrap_or_else(|| LOCAL.to_owned());
    let sandbox = args
        .sandbox_url
        .clone()
        .or_else(|| if named { None } else { under("sandbox") })
        .unwrap_or_else(|| api.clone());
    (api, sandbox)
}

/// The project that a command is about, if one is named: by a flag, by the environment, or
/// by the account unless a key of another may be in use.
pub(crate) fn project(args: &Connection, named: Option<&str>) -> anyhow::Result<Option<String>> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(id) = named
        .map(str::to_owned)
        .or_else(|| variable("E2B_PROJECT_ID"))
        .or_else(|| variable("E2B_TEAM_ID"))
    {
        return Ok(Some(id));
    }
    if args.api_key.is_some() {
        return Ok(None);
    }
    let Some(home) = account::home() else {
        return Ok(None);
    };
    let account = account::read(&account::path(&home))?;
    Ok(account
        .map(|account| account.project_id)
        .filter(|id| !id.is_empty()))
}

/// Refuses a project that was named and is not that of the key.
pub(crate) async fn require_project(client: &Client, named: Option<&str>) -> anyhow::Result<()> {
    if let Some(id) = named {
        client.templates(Some(id)).await.map_err(reached)?;
    }
    Ok(())
}

fn api_key(given: Option<&str>, home: Option<&Path>, data_dir: &Path) -> anyhow::Result<String> {
    if let Some(key) = given.map(str::trim).filter(|key| !key.is_empty()) {
        return Ok(key.to_owned());
    }
    if let Some(home) = home
        && let Some(account) = account::read(&account::path(home))?
    {
        return Ok(account.project_api_key);
    }
    let path = data_dir.join("api-key");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "no API key\nhint: run `warren auth login`, or set E2B_API_KEY; on the machine of the server, name its data directory with --data-dir"
        ),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;

    #[test]
    fn urls_come_from_the_nearest_source() {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let of = |api: &str, sandbox: &str, domain: &str| Connection {
            api_url: some(api),
            sandbox_url: some(sandbox),
            domain: some(domain),
            api_key: None,
            data_dir: "/d".into(),
        };
        let urls_of = |api: &str, sandbox: &str, domain: &str, debug| {
            let (api, sandbox) = urls(&of(api, sandbox, domain), debug);
            format!("{api} {sandbox}")
        };
        assert_eq!(urls_of("", "", "", false), format!("{LOCAL} {LOCAL}"));
        assert_eq!(urls_of("http://a", "", "d", false), "http://a http://a");
        assert_eq!(
            urls_of("", "", "d", false),
            "https://api.d https://sandbox.d"
        );
        assert_eq!(urls_of("", "", "d", true), format!("{LOCAL} {LOCAL}"));
        assert_eq!(
            urls_of("", "http://s", "d", false),
            "https://api.d http://s"
        );
    }

    #[test]
    fn a_key_comes_from_the_flag_the_shared_file_or_the_local_server() {
        let dir = tempfile::tempdir().unwrap();
        let (home, data) = (dir.path().join("home"), dir.path().join("data"));
        assert!(api_key(None, Some(&home), &data).is_err());
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("api-key"), "local\n").unwrap();
        assert_eq!(api_key(None, Some(&home), &data).unwrap(), "local");
        let kept = Account::of_key("kept", jiff::Timestamp::UNIX_EPOCH);
        let file = account::path(&home);
        account::write(&file, &kept).unwrap();
        assert_eq!(api_key(None, Some(&home), &data).unwrap(), "kept");
        assert_eq!(api_key(Some("flag"), Some(&home), &data).unwrap(), "flag");
        fs::write(&file, "no json").unwrap();
        let error = format!("{:#}", api_key(None, Some(&home), &data).unwrap_err());
        assert!(error.contains("config.json"), "{error}");
    }
}
