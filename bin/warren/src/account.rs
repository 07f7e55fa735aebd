//! What clients of the API share in `~/.e2b/config.json`: who is signed in, for which
//! project, with which key.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use anyhow::Context;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_client::{OAuth, Team, Tokens};

use crate::data::write_secret;
use crate::print::warning;

/// The form that is written.
const VERSION: u32 = 2;
const DEPRECATED: &str = "Your CLI authentication config is deprecated. You have been signed out. Please run `warren auth login` again.";

/// The file's contents. Version 1 called projects teams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) version: u32,
    pub(crate) identity: Identity,
    pub(crate) oauth: OAuth,
    pub(crate) tokens: Tokens,
    pub(crate) last_refresh: String,
    #[serde(rename = "projectName", alias = "teamName")]
    pub(crate) project_name: String,
    #[serde(rename = "projectId", alias = "teamId")]
    pub(crate) project_id: String,
    #[serde(rename = "projectApiKey", alias = "teamApiKey")]
    pub(crate) project_api_key: String,
    /// Of older clients; kept as it is.
    #[serde(rename = "dockerProxySet", skip_serializing_if = "Option::is_none")]
    pub(crate) docker_proxy_set: Option<bool>,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) email: String,
}

impl Account {
    /// One that nobody signed in to: it holds a key only.
    pub(crate) fn of_key(key: &str, now: Timestamp) -> Self {
        let shown: String = key.chars().take(6).collect();
        Self {
            version: VERSION,
            identity: Identity {
                email: format!("API key {shown}…"),
            },
            oauth: OAuth {
                token_endpoint: String::new(),
                revoke_endpoint: String::new(),
                client_id: String::new(),
            },
            tokens: Tokens {
                access_token: String::new(),
                refresh_token: String::new(),
            },
            last_refresh: now.to_string(),
            project_name: "of the key".to_owned(),
            project_id: String::new(),
            project_api_key: key.to_owned(),
            docker_proxy_set: None,
        }
    }

    /// Whether a person signed in, so that projects can be listed.
    pub(crate) fn is_of_person(&self) -> bool {
        !self.tokens.refresh_token.is_empty()
    }

    /// Selects a project.
    pub(crate) fn select(&mut self, team: Team, now: Timestamp) {
        self.version = VERSION;
        self.last_refresh = now.to_string();
        self.project_name = team.name;
        self.project_id = team.team_id;
        self.project_api_key = team.api_key;
    }

    /// What `auth info` tells.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("You are logged in as {},\n", self.identity.email);
        text.push_str(&format!("Selected project: {}", self.project_name));
        if !self.project_id.is_empty() {
            text.push_str(&format!(" ({})", self.project_id));
        }
        text
    }
}

/// A file that is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("read {path}\nhint: mend or remove the file, or set E2B_API_KEY", path = path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    #[source]
    source: serde_json::Error,
}

/// The home of this user.
pub(crate) fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}

/// Where the file is.
pub(crate) fn path(home: &Path) -> PathBuf {
    home.join(".e2b/config.json")
}

/// Reads a file; `None` if there is none. JSON of another shape counts as signed out, which
/// is told.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Account>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|source| Unreadable {
        path: path.to_owned(),
        source,
    })?;
    match serde_json::from_value::<Account>(value) {
        Ok(account) if matches!(account.version, 1 | VERSION) => Ok(Some(account)),
        _ => {
            warning(DEPRECATED);
            Ok(None)
        }
    }
}

/// Writes the file, for its owner only.
pub(crate) fn write(path: &Path, account: &Account) -> anyhow::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("make {}", dir.display()))?;
    }
    let written = Account {
        version: VERSION,
        ..account.clone()
    };
    write_secret(path, &serde_json::to_string_pretty(&written)?)
}

/// Removes the file. Returns whether there was one.
pub(crate) fn remove(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_account_is_kept_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(dir.path());
        assert_eq!(read(&file).unwrap(), None);
        let account = Account::of_key("e2b_0123456789", Timestamp::UNIX_EPOCH);
        write(&file, &account).unwrap();
        assert_eq!(read(&file).unwrap(), Some(account));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert!(
            fs::read_to_string(&file)
                .unwrap()
                .contains("\n  \"projectApiKey\": ")
        );
        assert!(remove(&file).unwrap() && !remove(&file).unwrap());
    }

    #[test]
    fn the_first_form_is_read_and_the_second_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let first = r#"{"version":1,"identity":{"email":"a@b.c"},
            "oauth":{"token_endpoint":"t","revoke_endpoint":"r","client_id":"c"},
            "tokens":{"access_token":"a","refresh_token":"r"},"last_refresh":"x",
            "teamName":"n","teamId":"i","teamApiKey":"k","dockerProxySet":true}"#;
        fs::write(&file, first).unwrap();
        let account = read(&file).unwrap().unwrap();
        assert_eq!(
            account.describe(),
            "You are logged in as a@b.c,\nSelected project: n (i)"
        );
        write(&file, &account).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("\"projectApiKey\": \"k\"") && text.contains("\"version\": 2"));
        assert!(text.contains("\"dockerProxySet\": true"));
    }

    #[test]
    fn another_shape_is_signed_out_and_no_json_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, r#"{"version":2,"projectApiKey":"k"}"#).unwrap();
        assert_eq!(read(&file).unwrap(), None);
        fs::write(&file, "no json").unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(
            error.contains("config.json") && error.contains("hint:"),
            "{error}"
        );
    }
}
