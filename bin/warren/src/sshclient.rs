//! `warren ssh` and `warren ssh-key`: for people who connect.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use anyhow::{Context, bail};
use warren_client::{Client, SshServer};

use crate::cli::ssh::{Ssh, SshKey, SshKeyCommand};
use crate::connection::{self, reached};
use crate::print::{done, json, line, local, printable, table};

/// Variable that hands the API key to this program when `ssh` runs it to ask for a password.
const PASSWORD: &str = "WARREN_SSH_PASSWORD";
/// What the question of `ssh` for a password ends with.
const QUESTION: &str = "password: ";

/// Answers the question of `ssh` for a password, if that is what this program was run for.
pub(crate) fn answer_question() -> Option<ExitCode> {
    let password = env::var(PASSWORD).ok()?;
    let question = env::args().nth(1)?;
    if env::args().len() != 2 || !question.ends_with(QUESTION) {
        return Some(ExitCode::FAILURE);
    }
    let told = writeln!(io::stdout(), "{password}");
    Some(if told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Runs `ssh` with what it needs to know of the server.
pub(crate) fn ssh(args: &Ssh, as_json: bool) -> anyhow::Result<ExitCode> {
    let config = connection::config(args.connection.clone())?;
    let client = Client::new(config.clone())?;
    let server = block_on(async { client.ssh_server().await.map_err(reached) })?;
    let known = known_hosts(&server)?;
    let words = words(args, &host(&config.api_url)?, &server, &known);
    if args.print {
        let text = warren_client::join_words(&words);
        done(as_json, &serde_json::json!({ "command": words }), &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let own = env::current_exe().context("find this program")?;
    // Only returns if it could not be run.
    let error = Command::new("ssh")
        .args(words.iter().skip(1))
        .env("SSH_ASKPASS", own)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env(PASSWORD, &config.api_key)
        .exec();
    Err(error).context(
        "run ssh\nhint: install OpenSSH's client, on Debian with `apt install openssh-client`",
    )
}

/// The host of a URL, which serves SSH too.
fn host(url: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("read the URL {url}"))?;
    let host = uri.host().with_context(|| format!("no host in {url}"))?;
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// The command line of `ssh`.
fn words(args: &Ssh, host: &str, server: &SshServer, known: &Path) -> Vec<String> {
    let user = match &args.user {
        Some(user) => format!("{}+{user}", args.id),
        None => args.id.clone(),
    };
    let options = [
        format!("UserKnownHostsFile={}", known.display()),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "HostKeyAlias=warren".to_owned(),
        "NumberOfPasswordPrompts=1".to_owned(),
    ];
    let mut words = vec!["ssh".to_owned(), "-p".to_owned(), server.port.to_string()];
    for option in options {
        words.extend(["-o".to_owned(), option]);
    }
    words.push(format!("{user}@{host}"));
    words.extend(args.args.iter().cloned());
    words
}

/// A file with the host key that the API tells, so that nobody has to compare it.
fn known_hosts(server: &SshServer) -> anyhow::Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(env::temp_dir);
    let dir = cache.join("warren");
    let name: String = server
        .fingerprint
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let path = dir.join(format!("known_hosts-{name}"));
    let text = format!("warren {}\n", server.host_key);
    let write = || -> io::Result<()> {
        if fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        fs::create_dir_all(&dir)?;
        let temporary = dir.join(format!("known_hosts-{}.tmp", std::process::id()));
        fs::write(&temporary, &text)?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Runs a command of `warren ssh-key`.
pub(crate) fn keys(args: SshKey, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = connection::client(args.connection)?;
    block_on(async {
        match args.command {
            SshKeyCommand::Add { file, name } => add(&client, file.as_deref(), name, as_json).await,
            SshKeyCommand::List => list(&client, as_json).await,
            SshKeyCommand::Remove { keys } => remove(&client, &keys, as_json).await,
        }
    })
}

fn read_key(file: Option<&Path>) -> anyhow::Result<String> {
    let path = match file {
        Some(path) if path.as_os_str() == OsStr::new("-") => {
            let mut text = String::new();
            // More than any key has; the server refuses what is too long.
            io::stdin().take(64 * 1024).read_to_string(&mut text)?;
            return Ok(text);
        }
        Some(path) => path.to_owned(),
        None => {
            let home = env::var_os("HOME").map(PathBuf::from);
            let usual = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];
            let found = home.and_then(|home| {
                let paths = usual.map(|name| home.join(".ssh").join(name));
                paths.into_iter().find(|path| path.exists())
            });
            match found {
                Some(path) => path,
                None => bail!(
                    "no public key in ~/.ssh\nhint: make one with `ssh-keygen -t ed25519`, or name its file"
                ),
            }
        }
    };
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

async fn add(
    client: &Client,
    file: Option<&Path>,
    name: Option<String>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let text = read_key(file)?;
    let added = client.add_ssh_key(text.trim(), name.as_deref()).await;
    let key = added.map_err(reached)?;
    if as_json {
        json(&key)?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!(
        "Added {} ({})",
        printable(&key.name),
        key.fingerprint
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, is_json: bool) -> anyhow::Result<ExitCode> {
    let keys = client.ssh_keys().await.map_err(reached)?;
    if is_json {
        json(&keys)?;
    } else if keys.is_empty() {
        line("No SSH keys; add one with `warren ssh-key add`")?;
    } else {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                let used = key.last_used_at.map_or_else(|| "never".to_owned(), local);
                vec![
                    key.key_id.clone(),
                    printable(&key.name),
                    key.fingerprint.clone(),
                    local(key.created_at),
                    used,
                ]
            })
            .collect();
        table(&["ID", "NAME", "FINGERPRINT", "ADDED", "LAST USED"], &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove(client: &Client, wanted: &[String], as_json: bool) -> anyhow::Result<ExitCode> {
    let keys = client.ssh_keys().await.map_err(reached)?;
    let mut removed = Vec::new();
    for text in wanted {
        let mut found = keys
            .iter()
            .filter(|key| [&key.key_id, &key.name, &key.fingerprint].contains(&text));
        let key = match (found.next(), found.next()) {
            (Some(key), None) => key,
            (Some(_), Some(_)) => bail!("several keys are called {text}\nhint: give the id"),
            (None, _) => bail!("SSH key {text} wasn't found"),
        };
        client.remove_ssh_key(&key.key_id).await.map_err(reached)?;
        removed.push(key);
        if !as_json {
            line(&format!(
                "Removed {} ({})",
                printable(&key.name),
                key.fingerprint
            ))?;
        }
    }
    if as_json {
        json(&removed)?;
    }
    Ok(ExitCode::SUCCESS)
}
