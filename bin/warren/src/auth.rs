//! `warren auth`: who the commands act for.

mod browser;

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::json;
use warren_client::{Client, Config, ListQuery, Login, Team};

use crate::account::{self, Account, Identity};
use crate::ask;
use crate::cli::auth::{Auth, AuthCommand, Configure, Login as LoginArgs};
use crate::cli::connection::Connection;
use crate::connection::{self, reached};
use crate::print::{self, line, printable, warning};

/// Longest key that is read from standard input.
const MAX_KEY: u64 = 512;

/// Told to those who keep an API key alone.
const ONLY_KEY: &str = "Only an API key is kept, which belongs to one project. To choose among projects, run `warren auth logout`, then `warren auth login`.";
/// Told to those who have not signed in.
const NOBODY: &str = "No user config found, run `warren auth login` to log in first.";

/// Runs a command of the group.
pub(crate) fn run(args: Auth, as_json: bool) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(dispatch(args, as_json));
    runtime.shutdown_background();
    result
}

async fn dispatch(args: Auth, as_json: bool) -> anyhow::Result<ExitCode> {
    let path = account::path(&account::home().context("HOME is not set")?);
    match args.command {
        AuthCommand::Login(login) => {
            if let Some(known) = account::read(&path)? {
                let text = format!(
                    "\nAlready logged in. {}.\n\nIf you want to log in as a different user, log out first by running 'warren auth logout'.\nTo change the project, run 'warren auth configure'.\n",
                    printable_lines(&known.describe())
                );
                print::done(as_json, &described(&known), &text)?;
                return Ok(ExitCode::SUCCESS);
            }
            let account = if login.with_key {
                keep_key(&args.connection).await?
            } else {
                in_browser(&args.connection, &login, as_json).await?
            };
            account::write(&path, &account)?;
            let text = format!(
                "Logged in as {} with selected project {}",
                printable(&account.identity.email),
                printable(&account.project_name)
            );
            print::done(as_json, &described(&account), &text)?;
        }
        AuthCommand::Logout => logout(&path, as_json).await?,
        AuthCommand::Info => info(account::read(&path)?.as_ref(), as_json)?,
        AuthCommand::Configure(choice) => {
            if !as_json {
                line("Configuring user...\n")?;
            }
            let (value, text) = match account::read(&path)? {
                Some(known) if known.is_of_person() => {
                    let chosen = configure(&args.connection, known, &choice, &path).await?;
                    let name = printable(&chosen.project_name);
                    let text = format!("Project {name} ({}) selected.\n", chosen.project_id);
                    (described(&chosen), text)
                }
                Some(known) => (described(&known), ONLY_KEY.to_owned()),
                None => (json!({ "loggedIn": false }), NOBODY.to_owned()),
            };
            print::done(as_json, &value, &text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What programs are told of an account.
fn described(account: &Account) -> serde_json::Value {
    json!({
        "loggedIn": true,
        "email": account.identity.email,
        "projectName": account.project_name,
        "projectId": account.project_id,
    })
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

fn info(account: Option<&Account>, as_json: bool) -> anyhow::Result<()> {
    match account {
        Some(known) => print::done(
            as_json,
            &described(known),
            &printable_lines(&known.describe()),
        ),
        None => print::done(as_json, &json!({ "loggedIn": false }), "Not logged in"),
    }
}

/// Takes an API key that works.
async fn keep_key(connection: &Connection) -> anyhow::Result<Account> {
    let key = match &connection.api_key {
        Some(key) => key.clone(),
        None => {
            let mut text = String::new();
            if io::stdin().is_terminal() {
                warning("API key:");
                io::stdin().read_line(&mut text)?;
            } else {
                io::stdin().take(MAX_KEY).read_to_string(&mut text)?;
            }
            text
        }
    };
    let key = key.trim();
    anyhow::ensure!(!key.is_empty(), "no API key was given");
    let client = Client::new(Config::new(connection::api_url(connection), key))?;
    let query = ListQuery {
        limit: Some(1),
        ..ListQuery::default()
    };
    client.list(&query).await.map_err(reached)?;
    Ok(Account::of_key(key, Timestamp::now()))
}

/// Signs in on the server's page.
async fn in_browser(
    connection: &Connection,
    args: &LoginArgs,
    as_json: bool,
) -> anyhow::Result<Account> {
    if as_json {
        warning("Attempting to log in...");
    } else {
        line("Attempting to log in...")?;
    }
    let api_url = connection::api_url(connection);
    let base = args.docs_base.as_deref().unwrap_or(&api_url);
    let grant = browser::sign_in(base).await?;
    let login = Login::new()?;
    let teams = login.teams(&api_url, &grant.tokens.access_token);
    let teams = teams.await.map_err(reached)?;
    let Some(team) = teams.into_iter().find(|team| team.is_default) else {
        bail!("No default project found, please contact support");
    };
    let now = Timestamp::now();
    let mut account = Account {
        identity: Identity { email: grant.email },
        oauth: grant.oauth,
        tokens: grant.tokens,
        ..Account::of_key(&team.api_key, now)
    };
    account.select(team, now);
    Ok(account)
}

async fn logout(path: &std::path::Path, as_json: bool) -> anyhow::Result<()> {
    // A file that can't be read holds nothing to revoke, and goes all the same.
    if let Ok(Some(known)) = account::read(path)
        && known.is_of_person()
        && let Err(error) = Login::new()?.revoke(&known.oauth, &known.tokens).await
    {
        warning(&format!("the server was not told: {error}"));
    }
    let was_in = account::remove(path)?;
    let text = if was_in {
        "Logged out."
    } else {
        "Not logged in, nothing to do"
    };
    print::done(as_json, &json!({ "loggedOut": was_in }), text)
}

async fn configure(
    connection: &Connection,
    mut account: Account,
    choice: &Configure,
    path: &std::path::Path,
) -> anyhow::Result<Account> {
    let login = Login::new()?;
    if account.tokens.is_expired(Timestamp::now()) {
        let fresh = login.refresh(&account.oauth, &account.tokens).await;
        let Some(tokens) = fresh.map_err(reached)? else {
            account::remove(path)?;
            bail!("Your session has expired. Please run `warren auth login` again.");
        };
        account.tokens = tokens;
        account::write(path, &account)?;
    }
    let api_url = connection::api_url(connection);
    let teams = login.teams(&api_url, &account.tokens.access_token);
    let mut teams = teams.await.map_err(reached)?;
    let index = match &choice.project {
        Some(named) => teams
            .iter()
            .position(|team| team.team_id == *named || team.name == *named)
            .with_context(|| format!("no project {named} of yours"))?,
        None => {
            let shown: Vec<String> = teams
                .iter()
                .map(|team| shown(team, &account.project_id))
                .collect();
            ask::one("Select project", &shown, "--project")?
        }
    };
    let team = teams.swap_remove(index);
    account.select(team, Timestamp::now());
    account::write(path, &account)?;
    Ok(account)
}

fn shown(team: &Team, selected: &str) -> String {
    let mark = if team.team_id == selected {
        " (currently selected project)"
    } else {
        ""
    };
    format!("{} ({}){mark}", printable(&team.name), team.team_id)
}
