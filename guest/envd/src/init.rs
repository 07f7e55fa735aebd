//! `POST /init`: what the host tells the agent after each boot and resume.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use rustix::time::{ClockId, Timespec};
use serde::Deserialize;
use warren_connect::Timestamp;
use warren_service::Secret;

use crate::VERSION;
use crate::agent::{Agent, Settings};
use crate::auth::header;
use crate::ca;
use crate::env::Vars;
use crate::log::Level;
use crate::reply::{self, Body};

/// Largest request in bytes.
const MAX_BODY: usize = 1 << 20;
/// Header with the host's secret.
const INIT_KEY_HEADER: &str = "x-init-key";
/// Header of the answer to a request whose new secret was taken over.
const KEY_CHANGED_HEADER: &str = "x-init-key-changed";
/// Name of the host-side service in `/etc/hosts`.
const EVENTS_HOST: &str = "events.e2b.local";
/// Directory of the files that tell a sandbox what it is.
const RUN_DIR: &str = "/run/e2b";
/// How far the clock may be behind, in nanoseconds, before it is set.
const MAX_BEHIND: i128 = 50_000_000;
/// How far the clock may be ahead, in nanoseconds, before it is set.
const MAX_AHEAD: i128 = 5_000_000_000;

/// The request.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InitRequest {
    timestamp: Option<Timestamp>,
    env_vars: Option<Vars>,
    access_token: Option<String>,
    init_key: Option<String>,
    default_user: Option<String>,
    default_workdir: Option<String>,
    #[serde(rename = "hyperloopIP")]
    hyperloop_ip: Option<String>,
    ca_bundle: Option<String>,
    volume_mounts: Option<Vec<VolumeMount>>,
    #[serde(rename = "lifecycleID")]
    lifecycle_id: Option<String>,
    #[serde(rename = "sandboxID")]
    sandbox_id: Option<String>,
    #[serde(rename = "templateID")]
    template_id: Option<String>,
    #[serde(rename = "buildID")]
    build_id: Option<String>,
    events_address: Option<String>,
}

#[derive(Deserialize)]
struct VolumeMount {
    nfs_target: String,
    path: String,
}

/// A refused request: status and text.
#[derive(Debug)]
struct Refused(StatusCode, String);

/// Serves `/init`.
pub(crate) async fn init(agent: &Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let _turn = agent.init_lock.lock().await;
    let result = async {
        let request = read(body).await?;
        let caller = authorise(agent, &parts.headers, &request)?;
        apply(agent, request, caller).await
    }
    .await;
    match result {
        Ok(has_new_key) => {
            let mut response = reply::no_store(reply::empty(StatusCode::NO_CONTENT));
            let headers = response.headers_mut();
            headers.insert(
                HeaderName::from_static("x-envd-version"),
                HeaderValue::from_static(VERSION),
            );
            if has_new_key {
                let name = HeaderName::from_static(KEY_CHANGED_HEADER);
                headers.insert(name, HeaderValue::from_static("true"));
            }
            response
        }
        Err(Refused(status, message)) => {
            agent
                .log
                .write(Level::Warn, "init", "init refused", &[("reason", &message)]);
            reply::text(status, &message)
        }
    }
}

async fn read(body: Incoming) -> Result<InitRequest, Refused> {
    let bytes = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) if e.is::<LengthLimitError>() => {
            let message = "request body too large".to_owned();
            return Err(Refused(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Err(e) => return Err(Refused(StatusCode::BAD_REQUEST, e.to_string())),
    };
    if bytes.is_empty() {
        return Ok(InitRequest::default());
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        let message = format!("failed to decode request body: {e}");
        Refused(StatusCode::BAD_REQUEST, message)
    })
}

/// Who sent a request, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Whoever knows the host's secret.
    Host,
    /// Anybody else who may.
    Other,
}

/// The guest can reach this port too, so only the host's secret or the sandbox's own token
/// open it. Without a secret the first request does.
fn authorise(agent: &Agent, headers: &HeaderMap, request: &InitRequest) -> Result<Caller, Refused> {
    let key = header(headers, INIT_KEY_HEADER);
    let settings = agent.settings();
    if let (Some(expected), Some(given)) = (&settings.init_key, key)
        && expected.matches(given)
    {
        return Ok(Caller::Host);
    }
    let given = request.access_token.as_deref().unwrap_or_default();
    match &settings.token {
        Some(current) if current.matches(given) => Ok(Caller::Other),
        None if settings.init_key.is_none() => Ok(Caller::Other),
        Some(_) if given.is_empty() => Err(Refused(
            StatusCode::UNAUTHORIZED,
            "access token reset not authorized".to_owned(),
        )),
        _ => Err(Refused(
            StatusCode::UNAUTHORIZED,
            "access token validation failed".to_owned(),
        )),
    }
}

/// Applies a request. Whether it brought a new secret.
async fn apply(
    agent: &Arc<Agent>,
    mut request: InitRequest,
    caller: Caller,
) -> Result<bool, Refused> {
    if !is_news(&agent.settings(), request.timestamp) {
        return Ok(false);
    }
    if agent.config.set_clock
        && let Some(timestamp) = request.timestamp
    {
        set_clock(agent, timestamp);
    }
    trust(agent, request.ca_bundle.take()).await?;
    write_files(agent, &request);
    log_volumes(agent, &request);

    let mut settings = agent.settings();
    let new_key = request
        .init_key
        .filter(|key| caller == Caller::Host && !key.is_empty());
    let has_new_key = new_key.is_some();
    if let Some(key) = new_key {
        settings.init_key = Some(Secret::new(key));
    }
    settings.token = request
        .access_token
        .filter(|token| !token.is_empty())
        .map(Secret::new);
    if let Some(vars) = request.env_vars {
        settings.env.replace_user(vars);
    }
    let internal = [
        ("E2B_SANDBOX_ID", request.sandbox_id),
        ("E2B_TEMPLATE_ID", request.template_id),
        (
            "E2B_EVENTS_ADDRESS",
            request
                .events_address
                .or_else(|| request.hyperloop_ip.map(|ip| format!("http://{ip}"))),
        ),
    ];
    for (name, value) in internal {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            settings.env.set_internal(name, &value);
        }
    }
    if let Some(user) = request.default_user.filter(|user| !user.is_empty()) {
        settings.default_user = user;
    }
    if let Some(workdir) = request.default_workdir.filter(|dir| !dir.is_empty()) {
        settings.default_workdir = Some(workdir);
    }
    if request.timestamp.is_some() {
        settings.last_init = request.timestamp;
    }
    Ok(has_new_key)
}

/// Installs certificates, if there are any, and says where programs find all of them.
async fn trust(agent: &Agent, bundle: Option<String>) -> Result<(), Refused> {
    let root = Path::new("/");
    let done = match bundle.filter(|text| !text.is_empty()) {
        Some(bundle) => {
            let install = move || ca::install(root, &bundle);
            agent.tasks.spawn_blocking(install).await
        }
        None => Ok(Ok(())),
    };
    let why = match done {
        Ok(Ok(())) => {
            agent.settings().env.set_defaults(ca::variables(root));
            return Ok(());
        }
        Ok(Err(e)) => warren_service::Chain(&e).to_string(),
        Err(e) => e.to_string(),
    };
    let message = format!("failed to install CA bundle: {why}");
    Err(Refused(StatusCode::SERVICE_UNAVAILABLE, message))
}

/// Replays of older requests change nothing.
fn is_news(settings: &Settings, timestamp: Option<Timestamp>) -> bool {
    match (timestamp, settings.last_init) {
        (Some(new), Some(last)) => new > last,
        _ => true,
    }
}

fn set_clock(agent: &Agent, timestamp: Timestamp) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
    let target = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
    if !clock_is_off(now, target) {
        return;
    }
    let time = Timespec {
        tv_sec: timestamp.seconds,
        tv_nsec: timestamp.nanos.into(),
    };
    if let Err(e) = rustix::time::clock_settime(ClockId::Realtime, time) {
        let why = e.to_string();
        let fields = [("error", why.as_str())];
        agent
            .log
            .write(Level::Error, "init", "setting the clock failed", &fields);
    }
}

/// Whether a clock at `now` must be set to `target`, both in nanoseconds.
fn clock_is_off(now: i128, target: i128) -> bool {
    target - now > MAX_BEHIND || now - target > MAX_AHEAD
}

/// The files that tell programs what sandbox they are in. A read-only place is no reason to
/// refuse the sandbox.
fn write_files(agent: &Agent, request: &InitRequest) {
    let report = |what: &str, result: io::Result<()>| {
        if let Err(e) = result {
            let why = e.to_string();
            let fields = [("file", what), ("error", why.as_str())];
            agent
                .log
                .write(Level::Warn, "init", "writing a file failed", &fields);
        }
    };
    let run = Path::new(RUN_DIR);
    if let Some(id) = &request.sandbox_id {
        report("sandbox id", fs::write(run.join(".E2B_SANDBOX_ID"), id));
    }
    if let Some(id) = &request.template_id {
        report("template id", fs::write(run.join(".E2B_TEMPLATE_ID"), id));
        let build = request.build_id.as_deref().unwrap_or_default();
        let text = format!("ENV_ID={id}\nTEMPLATE_ID={id}\nBUILD_ID={build}\n");
        report("/.e2b", fs::write("/.e2b", text));
    }
    if let Some(ip) = &request.hyperloop_ip {
        report("/etc/hosts", map_events_host(ip));
    }
}

fn map_events_host(ip: &str) -> io::Result<()> {
    if ip.parse::<std::net::IpAddr>().is_err() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let path = "/etc/hosts";
    let hosts = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e),
    };
    let mapped = with_host(&hosts, EVENTS_HOST, ip);
    if mapped == hosts {
        return Ok(());
    }
    // In place: the file may be a mount of its own.
    fs::write(path, mapped)
}

/// Maps `name` to `ip` and to nothing else.
fn with_host(hosts: &str, name: &str, ip: &str) -> String {
    let mut out = String::new();
    for line in hosts.lines() {
        let content = line.split('#').next().unwrap_or_default();
        if !content.split_whitespace().skip(1).any(|word| word == name) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out.push_str(&format!("{ip} {name}\n"));
    out
}

fn log_volumes(agent: &Agent, request: &InitRequest) {
    let lifecycle = request.lifecycle_id.as_deref().unwrap_or_default();
    for volume in request.volume_mounts.iter().flatten() {
        let fields = [
            ("target", volume.nfs_target.as_str()),
            ("path", volume.path.as_str()),
            ("lifecycle", lifecycle),
        ];
        let message = "volume not mounted: this agent has no NFS client";
        agent.log.write(Level::Error, "init", message, &fields);
    }
}

/// Makes the directory of run-time files. Called once at start.
///
/// # Errors
/// The directory or the marker can't be written.
pub(crate) fn prepare_run_dir() -> io::Result<()> {
    let run = Path::new(RUN_DIR);
    fs::create_dir_all(run)?;
    fs::set_permissions(run, fs::Permissions::from_mode(0o755))?;
    let marker = run.join(".E2B_SANDBOX");
    fs::write(&marker, "true")?;
    fs::set_permissions(&marker, fs::Permissions::from_mode(0o444))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_set_when_it_is_off() {
        let second = 1_000_000_000;
        assert!(!clock_is_off(10 * second, 10 * second + 50_000_000));
        assert!(clock_is_off(10 * second, 11 * second));
        assert!(!clock_is_off(15 * second, 10 * second));
        assert!(clock_is_off(16 * second, 10 * second));
    }

    #[test]
    fn a_host_is_mapped_once() {
        let hosts = "127.0.0.1 localhost\n1.1.1.1 events.e2b.local # old\n";
        let mapped = with_host(hosts, EVENTS_HOST, "192.0.2.1");
        assert_eq!(mapped, "127.0.0.1 localhost\n192.0.2.1 events.e2b.local\n");
        assert_eq!(with_host(&mapped, EVENTS_HOST, "192.0.2.1"), mapped);
    }

    #[test]
    fn the_body_has_the_names_of_the_contract() {
        let request: InitRequest = serde_json::from_str(
            r#"{"hyperloopIP":"192.0.2.1","lifecycleID":"l","sandboxID":"s","envVars":{"A":"1"},
                "volumeMounts":[{"nfs_target":"1.2.3.4:/x","path":"/mnt"}],
                "timestamp":"2026-01-01T00:00:00.5Z","eventsAddress":"http://e"}"#,
        )
        .unwrap();
        assert_eq!(request.hyperloop_ip.as_deref(), Some("192.0.2.1"));
        assert_eq!(request.sandbox_id.as_deref(), Some("s"));
        assert_eq!(request.timestamp.unwrap().nanos, 500_000_000);
    }
}
