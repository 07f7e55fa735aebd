//! `POST /files/compose`: several files become one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::fchown;
use std::path::Path;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use warren_service::Chain;

use crate::agent::Agent;
use crate::auth;
use crate::filesystem::is_missing;
use crate::paths::{self, base_name, ensure_dirs, parent};
use crate::reply::{RestError, is_disk_full};
use crate::users::User;

/// Largest request in bytes.
const MAX_BODY: usize = 4 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ComposeRequest {
    source_paths: Vec<String>,
    destination: String,
    username: Option<String>,
}

/// The composed file.
#[derive(Debug, Serialize)]
pub(crate) struct Composed {
    path: String,
    name: String,
    r#type: &'static str,
}

/// Serves a compose request.
///
/// # Errors
/// As the contract has it; the destination and all sources are unchanged then.
pub(crate) async fn compose(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
) -> Result<Composed, RestError> {
    let invalid = |why: &dyn std::fmt::Display| {
        RestError::bad_request(format!("invalid request body: {why}"))
    };
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| invalid(&e))?.to_bytes();
    let request: ComposeRequest = serde_json::from_slice(&body).map_err(|e| invalid(&e))?;
    let user = auth::rest_user(agent, request.username.as_deref())?;
    if request.source_paths.is_empty() {
        return Err(RestError::bad_request("source_paths must not be empty"));
    }
    if request.destination.is_empty() {
        return Err(RestError::bad_request("destination is required"));
    }
    let workdir = agent.default_workdir();
    let resolve = |path: &str| {
        paths::resolve(path, &user.home, workdir.as_deref())
            .map_err(|e| RestError::bad_request(format!("error resolving path: {e}")))
    };
    let destination = resolve(&request.destination)?;
    let mut sources = Vec::new();
    for given in &request.source_paths {
        let source = resolve(given)?;
        if paths::clean(&source) == paths::clean(&destination) {
            return Err(RestError::bad_request(format!(
                "source path \"{given}\" cannot be the same as destination"
            )));
        }
        sources.push(source);
    }
    agent
        .tasks
        .spawn_blocking(move || run(&sources, destination, &user))
        .await
        .map_err(|e| RestError::internal(format!("error composing files: {e}")))?
}

fn run(sources: &[String], destination: String, user: &User) -> Result<Composed, RestError> {
    for source in sources {
        match fs::metadata(source) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => {
                return Err(RestError::bad_request(format!(
                    "source path is not a regular file: {source}"
                )));
            }
            Err(e) if is_missing(&e) => return Err(missing(source)),
            Err(e) => return Err(failed("looking at source file", &e)),
        }
    }
    let directory = parent(&destination);
    ensure_dirs(Path::new(&directory), user).map_err(|e| match e.io() {
        Some(io) if is_disk_full(io) => failed("ensuring directories", io),
        _ => RestError::internal(format!("error ensuring directories: {}", Chain(&e))),
    })?;
    if fs::metadata(&destination).is_ok_and(|meta| meta.is_dir()) {
        let message = format!("path is a directory: {destination}");
        return Err(RestError::bad_request(message));
    }
    let temporary = format!(
        "{}/.{}.{:016x}",
        directory.trim_end_matches('/'),
        base_name(&destination),
        rand::random::<u64>()
    );
    let composed = concatenate(sources, &temporary, user).and_then(|()| {
        fs::rename(&temporary, &destination).map_err(|e| failed("renaming composed file", &e))
    });
    if let Err(error) = composed {
        // It may not exist yet; the first failure is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    for source in sources {
        // The composition stands. A source named twice is gone already.
        let _ = fs::remove_file(source);
    }
    Ok(Composed {
        name: base_name(&destination).to_owned(),
        path: destination,
        r#type: "file",
    })
}

fn concatenate(sources: &[String], temporary: &str, user: &User) -> Result<(), RestError> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(temporary)
        .map_err(|e| failed("creating file", &e))?;
    for source in sources {
        let mut input = File::open(source).map_err(|e| {
            if is_missing(&e) {
                missing(source)
            } else {
                failed("opening source file", &e)
            }
        })?;
        // Copied inside the kernel where the file system can.
        io::copy(&mut input, &mut out).map_err(|e| failed("copying source file", &e))?;
    }
    fchown(&out, Some(user.uid), Some(user.gid)).map_err(|e| failed("changing file ownership", &e))
}

fn missing(source: &str) -> RestError {
    let message = format!("source file not found: {source}");
    RestError::new(StatusCode::NOT_FOUND, message)
}

fn failed(what: &str, cause: &io::Error) -> RestError {
    if is_disk_full(cause) {
        RestError::no_space("not enough disk space available")
    } else {
        RestError::internal(format!("error {what}: {cause}"))
    }
}
