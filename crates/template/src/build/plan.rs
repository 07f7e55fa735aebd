//! Steps as pure logic: what they mean, what they change in the context of later ones, and
//! the keys under which their results are kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::port::Step;

/// Search path of commands, and what every other search path is completed with.
pub(super) const STANDARD_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What commands of a step run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    /// Whom they run as.
    pub(super) user: String,
    /// Where they start; the user's home if unset.
    pub(super) workdir: Option<String>,
    /// Variables.
    pub(super) env: BTreeMap<String, String>,
}

impl Context {
    /// The context on a raw image.
    pub(super) fn of_image(env: BTreeMap<String, String>) -> Self {
        Self {
            user: "root".to_owned(),
            workdir: None,
            env,
        }
    }

    /// Variables of a command. A search path of the template's own is completed with the
    /// standard directories that it lacks.
    pub(super) fn command_env(&self) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        if let Some(path) = env.get_mut("PATH") {
            *path = completed(path);
        }
        env
    }
}

fn completed(path: &str) -> String {
    let missing: Vec<&str> = STANDARD_PATH
        .split(':')
        .filter(|dir| !path.split(':').any(|own| own == *dir))
        .collect();
    let own = (!path.is_empty()).then_some(path);
    own.into_iter().chain(missing).collect::<Vec<_>>().join(":")
}

/// A step, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Runs a shell command, as another user than the context's if named.
    Run {
        command: String,
        user: Option<String>,
    },
    /// Copies from an uploaded archive.
    Copy(Copy),
    /// Sets variables, in order.
    Env(Vec<(String, String)>),
    /// Changes the directory.
    Workdir(String),
    /// Changes the user.
    User { name: String, admin: bool },
}

/// A copy from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// Path in the archive, with a pattern at the end perhaps.
    pub(super) src: String,
    /// Path in the sandbox.
    pub(super) dest: String,
    /// `USER` or `USER:GROUP`.
    pub(super) owner: Option<String>,
    /// Octal digits.
    pub(super) mode: Option<String>,
    /// Hash that names the archive.
    pub(super) files_hash: String,
}

fn filled(args: &[String], index: usize) -> Option<&String> {
    args.get(index).filter(|arg| !arg.is_empty())
}

impl Instruction {
    /// Understands a step, or tells in the words that users know why it can't be.
    pub(super) fn parse(step: &Step) -> Result<Self, String> {
        let args = &step.args;
        match step.kind.to_ascii_uppercase().as_str() {
            "RUN" => Ok(Self::Run {
                command: filled(args, 0)
                    .ok_or("RUN requires command argument")?
                    .clone(),
                user: filled(args, 1).cloned(),
            }),
            kind @ ("COPY" | "ADD") => {
                let (Some(src), Some(dest)) = (filled(args, 0), filled(args, 1)) else {
                    return Err(format!(
                        "{kind} requires a local path and a container path argument"
                    ));
                };
                let hash = step.files_hash.as_ref().filter(|hash| !hash.is_empty());
                Ok(Self::Copy(Copy {
                    src: src.clone(),
                    dest: dest.clone(),
                    owner: filled(args, 2).cloned(),
                    mode: filled(args, 3).cloned(),
                    files_hash: hash
                        .ok_or_else(|| format!("{kind} requires files hash to be set"))?
                        .clone(),
                }))
            }
            kind @ ("ENV" | "ARG") => {
                if args.is_empty() {
                    return Err(format!("{kind} does not support passing no arguments"));
                }
                if !args.len().is_multiple_of(2) {
                    return Err(format!("{kind} requires both a key and value arguments"));
                }
                let pairs = args.chunks_exact(2);
                Ok(Self::Env(
                    pairs
                        .map(|pair| (pair[0].clone(), pair[1].clone()))
                        .collect(),
                ))
            }
            "WORKDIR" => Ok(Self::Workdir(
                filled(args, 0)
                    .ok_or("WORKDIR requires a path argument")?
                    .clone(),
            )),
            "USER" => Ok(Self::User {
                name: filled(args, 0)
                    .ok_or("USER requires a username argument")?
                    .clone(),
                admin: args.get(1).is_some_and(|arg| arg == "true"),
            }),
            _ => Err(format!(
                "failed to get command for step {kind}: command type {kind} is not implemented",
                kind = step.kind
            )),
        }
    }
}

/// How a step is shown: its type and arguments.
pub(super) fn shown(step: &Step) -> String {
    let mut text = step.kind.to_ascii_uppercase();
    for arg in &step.args {
        text.push(' ');
        text.push_str(arg);
    }
    text
}

/// Key of the result of something that was made of what is under `previous`. Parts are kept
/// apart, so that no two lists of them share a key.
pub(crate) fn key(previous: &str, parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&previous).chain(parts) {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

/// The part of a key that is shown.
pub(super) fn short(key: &str) -> &str {
    key.get(..12).unwrap_or(key)
}

/// Key of a step's result.
pub(super) fn step_key(previous: &str, step: &Step) -> String {
    let kind = step.kind.to_ascii_uppercase();
    let mut parts = vec![
        "step",
        kind.as_str(),
        step.files_hash.as_deref().unwrap_or(""),
    ];
    parts.extend(step.args.iter().map(String::as_str));
    key(previous, &parts)
}

/// Which steps may not come from the cache: all from the first forced one on.
pub(super) fn forced(force: bool, steps: &[Step]) -> Vec<bool> {
    let mut sticky = force;
    let mut all = Vec::with_capacity(steps.len());
    for step in steps {
        sticky |= step.force;
        all.push(sticky);
    }
    all
}

/// Replaces `$NAME`, `${NAME}` and `${NAME:-word}` (with `-`, `:+`, `+` alike) by the
/// variables; everything else stays as it is, and no command runs. Unset variables are empty.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inside) = rest.strip_prefix('{') {
            if let Some((value, length)) = braced(inside, lookup) {
                out.push_str(&value);
                rest = &inside[length..];
                continue;
            }
        } else {
            let length = name_length(rest);
            if length > 0 {
                out.push_str(&lookup(&rest[..length]).unwrap_or_default());
                rest = &rest[length..];
                continue;
            }
        }
        out.push('$');
    }
    out.push_str(rest);
    out
}

/// Length of the variable name that a text begins with.
fn name_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if !bytes
        .first()
        .is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
    {
        return 0;
    }
    bytes
        .iter()
        .position(|b| !(b.is_ascii_alphanumeric() || *b == b'_'))
        .unwrap_or(bytes.len())
}

/// Value of what follows `${`, and its length with the closing brace; `None` if it is no
/// expansion.
fn braced(inside: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<(String, usize)> {
    let length = name_length(inside);
    let (name, after) = inside.split_at(length);
    if length == 0 {
        return None;
    }
    if after.starts_with('}') {
        return Some((lookup(name).unwrap_or_default(), length + 1));
    }
    let close = closing(after)?;
    let (operator, word) = [":-", ":+", "-", "+"]
        .iter()
        .find_map(|operator| Some((*operator, after[..close].strip_prefix(operator)?)))?;
    let value = lookup(name).filter(|value| !operator.starts_with(':') || !value.is_empty());
    let value = match (operator.trim_start_matches(':'), value) {
        ("-", Some(value)) => value,
        ("-", None) | ("+", Some(_)) => expand(word, lookup),
        _ => String::new(),
    };
    Some((value, length + close + 1))
}

/// Where the brace is that closes the one before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth = depth.checked_add(1)?,
            b'}' => depth -= 1,
            _ => {}
        }
        // Words nest by recursion.
        if depth > 16 {
            return None;
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Whether an expansion would need a variable that is not among `env`.
pub(super) fn needs_more_than(env: &BTreeMap<String, String>, texts: &[&str]) -> bool {
    let missing = std::cell::Cell::new(false);
    for text in texts {
        expand(text, &|name| {
            let value = env.get(name).cloned();
            missing.set(missing.get() || value.is_none());
            value
        });
    }
    missing.get()
}

/// The variables after setting `pairs` in order, each seeing the ones before. `outer` are
/// those that a command has besides.
pub(super) fn set_env(
    env: &BTreeMap<String, String>,
    outer: &BTreeMap<String, String>,
    pairs: &[(String, String)],
) -> BTreeMap<String, String> {
    let mut env = env.clone();
    for (name, value) in pairs {
        let value = expand(value, &|name| {
            env.get(name).or_else(|| outer.get(name)).cloned()
        });
        env.insert(name.clone(), value);
    }
    env
}

/// Joins a path to a directory and removes `.`, `..` and doubled slashes. `base` is absolute.
pub(super) fn join(base: &str, path: &str) -> String {
    let full = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The part of a copy's source before the first component with a pattern.
pub(super) fn without_pattern(src: &str) -> String {
    let is_pattern = |part: &&str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<&str> = src
        .split('/')
        .take_while(|part| !is_pattern(part))
        .collect();
    let joined = parts.join("/");
    let trimmed = joined.trim_matches('/');
    let kept: Vec<&str> = trimmed
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    kept.join("/")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
