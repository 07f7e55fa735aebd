//! `warren trust`: has this machine trust the server's private authority and find names
//! below its domain, so that `E2B_DOMAIN` alone is enough for clients on it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail, ensure};
use serde_json::json;
use warren_address::Authority;

use crate::address::authorities;
use crate::cli::address::Trust;
use crate::print::{self, line};

/// A trust store of the system: where anchors are put, what takes them up, and what forgets
/// those that are gone.
struct Store {
    dir: &'static str,
    update: &'static [&'static str],
    forget: &'static [&'static str],
    /// All that is trusted, for clients that bring a list of their own.
    bundle: &'static str,
}

const STORES: [Store; 2] = [
    Store {
        dir: "/usr/local/share/ca-certificates",
        update: &["update-ca-certificates"],
        forget: &["update-ca-certificates", "--fresh"],
        bundle: "/etc/ssl/certs/ca-certificates.crt",
    },
    Store {
        dir: "/etc/pki/ca-trust/source/anchors",
        update: &["update-ca-trust", "extract"],
        forget: &["update-ca-trust", "extract"],
        bundle: "/etc/pki/tls/certs/ca-bundle.crt",
    },
];

/// Makes names below `.localhost` loopback for every program that uses the C library.
const LOOPBACK_NAMES: &[&str] = &["apt-get", "install", "-y", "libnss-myhostname"];

/// Installs or removes the trust.
pub(crate) fn run(args: &Trust, as_json: bool) -> anyhow::Result<ExitCode> {
    let domains = domains(&authorities(&args.data_dir.path))?;
    ensure!(
        !domains.is_empty(),
        "no server has made certificates in {}\nhint: start it once with `warren up`, or name its directory with --data-dir",
        args.data_dir.path.display()
    );
    ensure!(
        args.dry_run || rustix::process::geteuid().is_root(),
        "the trust store of the system is root's\nhint: run it with sudo"
    );
    let Some(store) = STORES.iter().find(|store| Path::new(store.dir).is_dir()) else {
        bail!("no known trust store on this machine\nhint: install the package ca-certificates");
    };
    let mut out: Box<dyn Write> = if as_json {
        Box::new(io::sink())
    } else {
        Box::new(io::stdout().lock())
    };
    for (domain, certificate) in &domains {
        let anchor = anchor(store, domain);
        if args.remove {
            writeln!(out, "remove {}", anchor.display())?;
        } else {
            writeln!(out, "trust {} for {domain}", certificate.display())?;
        }
        if args.dry_run {
            continue;
        }
        let done = if args.remove {
            std::fs::remove_file(&anchor)
        } else {
            std::fs::copy(certificate, &anchor).map(drop)
        };
        match done {
            Err(error) if args.remove && error.kind() == io::ErrorKind::NotFound => {}
            done => done.with_context(|| format!("change {}", anchor.display()))?,
        }
    }
    let changed = if args.remove {
        store.forget
    } else {
        store.update
    };
    act(args, &mut out, changed)?;
    if !args.remove {
        for (domain, _) in &domains {
            find_names(args, &mut out, domain)?;
        }
    }
    drop(out);
    if as_json {
        let domains: BTreeMap<_, _> = domains.iter().cloned().collect();
        let value = json!({ "domains": domains, "removed": args.remove, "dryRun": args.dry_run });
        print::json(&value)?;
    } else if !args.remove {
        tell_of_lists(&domains, store.bundle)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what clients need that do not ask the system whom to trust.
fn tell_of_lists(domains: &[(String, PathBuf)], bundle: &str) -> anyhow::Result<()> {
    let certificates: Vec<_> = domains
        .iter()
        .map(|(_, path)| path.display().to_string())
        .collect();
    line(&format!(
        "\nClients with a list of their own need it named:\n\n  export SSL_CERT_FILE={bundle}\n  export NODE_EXTRA_CA_CERTS={}",
        certificates[0]
    ))?;
    Ok(())
}

/// Takes back the trust in the authorities of a server whose data goes; not in others that
/// serve the same domains. Returns how many there were.
pub(crate) fn withdraw(data_dir: &Path) -> anyhow::Result<usize> {
    let Some(store) = STORES.iter().find(|store| Path::new(store.dir).is_dir()) else {
        return Ok(0);
    };
    let mut removed = 0;
    for (domain, certificate) in domains(&authorities(data_dir))? {
        let anchor = anchor(store, &domain);
        let trusted = match std::fs::read(&anchor) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read.with_context(|| format!("read {}", anchor.display()))?,
        };
        let own = std::fs::read(&certificate);
        if trusted == own.with_context(|| format!("read {}", certificate.display()))? {
            let done = std::fs::remove_file(&anchor);
            done.with_context(|| format!("remove {}", anchor.display()))?;
            removed += 1;
        }
    }
    if removed > 0 {
        update(store.forget)?;
    }
    Ok(removed)
}

fn anchor(store: &Store, domain: &str) -> PathBuf {
    Path::new(store.dir).join(format!("warren-{domain}.crt"))
}

/// The domains that there is an authority for, with its certificate.
fn domains(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", dir.display()))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let Ok(domain) = entry?.file_name().into_string() else {
            continue;
        };
        let certificate = Authority::certificate_of(dir, &domain);
        if certificate.exists() {
            found.push((domain, certificate));
        }
    }
    found.sort();
    Ok(found)
}

/// Sees to it that names below the domain are found.
fn find_names(args: &Trust, out: &mut impl Write, domain: &str) -> anyhow::Result<()> {
    let name = format!("api.{domain}");
    let is_found = || {
        (name.as_str(), 443)
            .to_socket_addrs()
            .is_ok_and(|mut all| all.next().is_some())
    };
    if is_found() {
        return Ok(());
    }
    let is_loopback = domain == "localhost" || domain.ends_with(".localhost");
    if is_loopback && Path::new("/usr/bin/apt-get").exists() {
        return act(args, out, LOOPBACK_NAMES);
    }
    writeln!(
        out,
        "\n{name} is not found by this machine. Have its resolver ask the server for {domain}:\nstart it with --dns-listen, or add a wildcard record for *.{domain}."
    )?;
    Ok(())
}

/// Runs a program of the system, or only says so.
fn act(args: &Trust, out: &mut impl Write, command: &[&str]) -> anyhow::Result<()> {
    writeln!(out, "run {}", command.join(" "))?;
    if args.dry_run {
        return Ok(());
    }
    update(command)
}

/// Runs a program of the system.
fn update(command: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .with_context(|| format!("run {}", command[0]))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        command.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
