//! `warren team`, `warren user` and `warren key`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use warren_wire as wire;

use super::link::{Link, path};
use super::run;
use crate::cli::operator::{
    Key, KeyCommand, NewKey, Team, TeamCommand, TokenCommand, User, UserCommand,
};
use crate::print::{self, done, line, local, printable, table};

/// Runs `warren team`.
pub(crate) fn team(args: Team, as_json: bool) -> anyhow::Result<ExitCode> {
    let command = args.command;
    run(args.operator, |link| async move {
        match command {
            TeamCommand::Create {
                name,
                slug,
                max_sandboxes,
            } => {
                let new = wire::NewTeam {
                    name,
                    slug,
                    max_sandboxes,
                };
                team_create(&link, as_json, &new).await
            }
            TeamCommand::List => teams(&link, as_json).await,
            TeamCommand::Rename { team, name } => {
                let change = wire::AdminTeamChange {
                    name: Some(name),
                    ..wire::AdminTeamChange::default()
                };
                team_change(&link, as_json, &team, &change).await
            }
            TeamCommand::Set {
                team,
                max_sandboxes,
                state,
            } => {
                let change = wire::AdminTeamChange {
                    name: None,
                    max_sandboxes,
                    state,
                };
                team_change(&link, as_json, &team, &change).await
            }
            TeamCommand::Members { team } => members(&link, as_json, &team).await,
            TeamCommand::Delete { team, force } => {
                let mut path = path(&["admin", "teams", &team]);
                if force {
                    path.push_str("?force=true");
                }
                let hint = if link.is_offline() {
                    "\nhint: start the server first if the team has running sandboxes"
                } else {
                    "\nhint: --force deletes what it has, too"
                };
                let deleted = link.delete(&path).await;
                deleted.with_context(|| format!("delete team {team}{hint}"))?;
                let value = json!({ "team": team, "deleted": true });
                done(as_json, &value, &format!("Team {team} has been deleted"))
            }
        }
    })
}

async fn team_create(link: &Link, as_json: bool, new: &wire::NewTeam) -> anyhow::Result<()> {
    let all = path(&["admin", "teams"]);
    let team: wire::AdminTeam = link.send(Method::POST, &all, new).await?;
    let first = wire::NewApiKey {
        name: "default".to_owned(),
        scope: None,
        expires_at: None,
    };
    let keys = path(&["admin", "teams", &team.team_id, "api-keys"]);
    let key: wire::CreatedTeamApiKey = link.send(Method::POST, &keys, &first).await?;
    if as_json {
        return print::json(&json!({ "team": team, "key": key }));
    }
    line(&format!(
        "Team {} ({}) has been made",
        team.slug, team.team_id
    ))?;
    // The clear key: it is shown this once.
    line(&key.key)?;
    Ok(())
}

async fn teams(link: &Link, as_json: bool) -> anyhow::Result<()> {
    let teams: Vec<wire::AdminTeam> = link.get(&path(&["admin", "teams"])).await?;
    if as_json {
        return print::json(&teams);
    }
    let header = [
        "TEAM ID",
        "SLUG",
        "NAME",
        "STATE",
        "SANDBOXES",
        "MAX",
        "TEMPLATES",
        "VOLUMES",
        "CREATED AT",
    ];
    let rows: Vec<Vec<String>> = teams
        .into_iter()
        .map(|team| {
            let max = team.max_sandboxes.map(|max| max.to_string());
            vec![
                team.team_id,
                team.slug,
                printable(&team.name),
                team.state.to_string(),
                team.sandboxes.to_string(),
                max.unwrap_or_else(|| "default".to_owned()),
                team.templates.to_string(),
                team.volumes.to_string(),
                local(team.created_at),
            ]
        })
        .collect();
    Ok(table(&header, &rows)?)
}

async fn team_change(
    link: &Link,
    as_json: bool,
    team: &str,
    change: &wire::AdminTeamChange,
) -> anyhow::Result<()> {
    let path = path(&["admin", "teams", team]);
    let team: wire::AdminTeam = link.send(Method::PATCH, &path, change).await?;
    let value = serde_json::to_value(&team)?;
    done(
        as_json,
        &value,
        &format!("Team {} has been changed", team.slug),
    )
}

async fn members(link: &Link, as_json: bool, team: &str) -> anyhow::Result<()> {
    let path = path(&["admin", "teams", team, "members"]);
    let members: Vec<wire::TeamMember> = link.get(&path).await?;
    if as_json {
        return print::json(&members);
    }
    let rows: Vec<Vec<String>> = members
        .into_iter()
        .map(|member| vec![member.id, printable(&member.email), member.role.to_string()])
        .collect();
    Ok(table(&["USER ID", "EMAIL", "ROLE"], &rows)?)
}

/// Runs `warren user`.
pub(crate) fn user(args: User, as_json: bool) -> anyhow::Result<ExitCode> {
    let command = args.command;
    run(args.operator, |link| async move {
        match command {
            UserCommand::Create { email, team, role } => {
                user_create(&link, as_json, email, &team, role).await
            }
            UserCommand::List => users(&link, as_json).await,
            UserCommand::Join {
                user,
                team,
                role,
                make_default,
            } => {
                let member = wire::NewMember { role, make_default };
                let path = path(&["admin", "teams", &team, "members", &user]);
                link.put(&path, &member).await?;
                let value = json!({ "user": user, "team": team, "role": role });
                done(as_json, &value, &format!("{user} is {role} of team {team}"))
            }
            UserCommand::Leave { user, team } => {
                let path = path(&["admin", "teams", &team, "members", &user]);
                link.delete(&path).await?;
                let value = json!({ "user": user, "team": team, "left": true });
                done(as_json, &value, &format!("{user} has left team {team}"))
            }
            UserCommand::Delete { user } => {
                link.delete(&path(&["admin", "users", &user])).await?;
                let value = json!({ "user": user, "deleted": true });
                done(as_json, &value, &format!("User {user} has been deleted"))
            }
            UserCommand::Token(command) => token(&link, as_json, command).await,
        }
    })
}

async fn user_create(
    link: &Link,
    as_json: bool,
    email: String,
    team: &str,
    role: warren_types::Role,
) -> anyhow::Result<()> {
    // Asked for first, so that a wrong team leaves nobody behind.
    let team: wire::AdminTeam = link.get(&path(&["admin", "teams", team])).await?;
    let new = wire::NewUser { email };
    let all = path(&["admin", "users"]);
    let user: wire::AdminUser = link.send(Method::POST, &all, &new).await?;
    let member = wire::NewMember {
        role,
        make_default: false,
    };
    let place = path(&["admin", "teams", &team.team_id, "members", &user.id]);
    link.put(&place, &member).await?;
    let first = wire::NewApiKey {
        name: "default".to_owned(),
        scope: None,
        expires_at: None,
    };
    let tokens = path(&["admin", "users", &user.id, "access-tokens"]);
    let made: wire::CreatedAccessToken = link.send(Method::POST, &tokens, &first).await?;
    if as_json {
        return print::json(&json!({ "user": user, "accessToken": made }));
    }
    line(&format!(
        "{} ({}) is {role} of team {}",
        user.email, user.id, team.slug
    ))?;
    // The clear token: it is shown this once.
    line(&made.token)?;
    Ok(())
}

async fn users(link: &Link, as_json: bool) -> anyhow::Result<()> {
    let users: Vec<wire::AdminUser> = link.get(&path(&["admin", "users"])).await?;
    if as_json {
        return print::json(&users);
    }
    let rows: Vec<Vec<String>> = users
        .into_iter()
        .map(|user| {
            let teams = user
                .teams
                .iter()
                .map(|team| format!("{} ({})", team.slug, team.role));
            vec![
                user.id.clone(),
                printable(&user.email),
                teams.collect::<Vec<_>>().join(", "),
                local(user.created_at),
            ]
        })
        .collect();
    Ok(table(&["USER ID", "EMAIL", "TEAMS", "CREATED AT"], &rows)?)
}

fn new_key(new: NewKey) -> wire::NewApiKey {
    wire::NewApiKey {
        name: new.name,
        scope: Some(new.scope),
        expires_at: new.expires,
    }
}

fn masked(mask: &wire::Mask) -> String {
    format!(
        "{}{}…{}",
        mask.prefix, mask.masked_value_prefix, mask.masked_value_suffix
    )
}

fn or_dash(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), local)
}

const KEY_HEADER: [&str; 7] = [
    "ID",
    "NAME",
    "VALUE",
    "SCOPE",
    "CREATED AT",
    "LAST USED",
    "EXPIRES AT",
];

async fn token(link: &Link, as_json: bool, command: TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create { user, new } => {
            let path = path(&["admin", "users", &user, "access-tokens"]);
            let made: wire::CreatedAccessToken =
                link.send(Method::POST, &path, &new_key(new)).await?;
            if as_json {
                return print::json(&made);
            }
            // The clear token: it is shown this once.
            Ok(line(&made.token)?)
        }
        TokenCommand::List { user } => {
            let path = path(&["admin", "users", &user, "access-tokens"]);
            let tokens: Vec<wire::AccessToken> = link.get(&path).await?;
            if as_json {
                return print::json(&tokens);
            }
            let rows: Vec<Vec<String>> = tokens
                .into_iter()
                .map(|token| {
                    vec![
                        token.id,
                        printable(&token.name),
                        masked(&token.mask),
                        token.scope.to_string(),
                        local(token.created_at),
                        or_dash(token.last_used),
                        or_dash(token.expires_at),
                    ]
                })
                .collect();
            Ok(table(&KEY_HEADER, &rows)?)
        }
        TokenCommand::Delete { user, token } => {
            let path = path(&["admin", "users", &user, "access-tokens", &token]);
            link.delete(&path).await?;
            let value = json!({ "accessToken": token, "deleted": true });
            done(
                as_json,
                &value,
                &format!("Access token {token} has been deleted"),
            )
        }
    }
}

/// Runs `warren key`.
pub(crate) fn key(args: Key, as_json: bool) -> anyhow::Result<ExitCode> {
    if let KeyCommand::ShowFirst = args.command {
        show_first(&args.operator.data_dir, as_json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let command = args.command;
    run(args.operator, |link| async move {
        match command {
            KeyCommand::Create { team, new } => {
                let path = path(&["admin", "teams", &team, "api-keys"]);
                let made: wire::CreatedTeamApiKey =
                    link.send(Method::POST, &path, &new_key(new)).await?;
                if as_json {
                    return print::json(&made);
                }
                // The clear key: it is shown this once.
                Ok(line(&made.key)?)
            }
            KeyCommand::List { team } => keys(&link, as_json, &team).await,
            KeyCommand::Rename { key, name, team } => {
                let path = path(&["admin", "teams", &team, "api-keys", &key]);
                let rename = wire::Rename { name };
                let key: wire::TeamApiKey = link.send(Method::PATCH, &path, &rename).await?;
                let value = serde_json::to_value(&key)?;
                let name = printable(&key.name);
                done(as_json, &value, &format!("Key {} is called {name}", key.id))
            }
            KeyCommand::Revoke { key, team } => {
                link.delete(&path(&["admin", "teams", &team, "api-keys", &key]))
                    .await?;
                let value = json!({ "key": key, "revoked": true });
                done(as_json, &value, &format!("Key {key} has been revoked"))
            }
            KeyCommand::ShowFirst => Ok(()),
        }
    })
}

async fn keys(link: &Link, as_json: bool, team: &str) -> anyhow::Result<()> {
    let path = path(&["admin", "teams", team, "api-keys"]);
    let keys: Vec<wire::TeamApiKey> = link.get(&path).await?;
    if as_json {
        return print::json(&keys);
    }
    let rows: Vec<Vec<String>> = keys
        .into_iter()
        .map(|key| {
            vec![
                key.id,
                printable(&key.name),
                masked(&key.mask),
                key.scope.to_string(),
                local(key.created_at),
                or_dash(key.last_used),
                or_dash(key.expires_at),
            ]
        })
        .collect();
    Ok(table(&KEY_HEADER, &rows)?)
}

/// The key that the server wrote down at its first start.
fn show_first(data_dir: &Path, as_json: bool) -> anyhow::Result<()> {
    let path = data_dir.join("api-key");
    let key = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "read {}\nhint: run it on the server's machine with sudo, or name the server's directory with --data-dir",
            path.display()
        )
    })?;
    if as_json {
        return print::json(&json!({ "key": key.trim() }));
    }
    Ok(line(key.trim())?)
}
