//! Certificates that the host wants the guest to trust.
//!
//! They are kept in the system's bundle, which programs read, and as a local certificate,
//! from which the guest's own tools rebuild that bundle. The local copy also says which
//! blocks of the bundle are ours when a new set replaces them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::env::Vars;

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const LOCAL: &str = "usr/local/share/ca-certificates/e2b-ca.crt";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A bundle that can't be installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaError {
    /// There is no certificate in it.
    #[error("no certificate found in the bundle")]
    Empty,
    /// A file can't be read.
    #[error("failed to read {0}")]
    Read(&'static str, #[source] io::Error),
    /// A file can't be written.
    #[error("failed to write {0}")]
    Write(&'static str, #[source] io::Error),
}

/// Replaces the certificates that were installed before by those in `pem`. Returns the
/// variables by which programs that have certificates of their own find these.
pub(crate) fn install(root: &Path, pem: &str) -> Result<Vars, CaError> {
    if blocks(pem).next().is_none() {
        return Err(CaError::Empty);
    }
    let bundle = read(root, BUNDLE)?;
    let before = read(root, LOCAL)?;
    let merged = merge(&bundle, &before, pem);
    if merged != bundle {
        write(root, BUNDLE, &merged)?;
    }
    // Last, so that after a failure the old blocks are still known as ours.
    if before != pem {
        write(root, LOCAL, pem)?;
    }
    // Programs take this beside those that they know.
    let mut vars = Vars::from([("NODE_EXTRA_CA_CERTS".to_owned(), format!("/{LOCAL}"))]);
    // And these instead of them, so there must be more in it than ours.
    if blocks(&merged).count() > blocks(pem).count() {
        for name in ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"] {
            vars.insert(name.to_owned(), format!("/{BUNDLE}"));
        }
    }
    Ok(vars)
}

fn read(root: &Path, name: &'static str) -> Result<String, CaError> {
    match fs::read(root.join(name)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(CaError::Read(name, e)),
    }
}

fn write(root: &Path, name: &'static str, text: &str) -> Result<(), CaError> {
    let path = root.join(name);
    let run = || -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let temporary = path.with_extension("crt.new");
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644))?;
        fs::rename(&temporary, &path)
    };
    run().map_err(|e| CaError::Write(name, e))
}

/// The bundle without the `before` blocks and with the `after` ones at its end.
fn merge(bundle: &str, before: &str, after: &str) -> String {
    let mut out = bundle.to_owned();
    for block in blocks(before).chain(blocks(after)) {
        while let Some(at) = out.find(block) {
            let mut end = at + block.len();
            if out[end..].starts_with('\n') {
                end += 1;
            }
            out.replace_range(at..end, "");
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    for block in blocks(after) {
        out.push_str(block);
        out.push('\n');
    }
    out
}

/// The certificates of a PEM text.
fn blocks(pem: &str) -> impl Iterator<Item = &str> {
    let mut rest = pem;
    std::iter::from_fn(move || {
        let from = rest.find(BEGIN)?;
        let len = rest[from..].find(END)? + END.len();
        let block = &rest[from..from + len];
        rest = &rest[from + len..];
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cert(name: &str) -> String {
        format!("{BEGIN}\n{name}\n{END}\n")
    }

    #[test]
    fn a_new_set_replaces_the_old_one_only() {
        let root = tempfile::tempdir().unwrap();
        let bundle = root.path().join(BUNDLE);
        fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        fs::write(&bundle, cert("system")).unwrap();

        install(root.path(), &cert("one")).unwrap();
        let vars = install(root.path(), &cert("one")).unwrap();
        assert_eq!(vars["SSL_CERT_FILE"], format!("/{BUNDLE}"));
        assert_eq!(vars["NODE_EXTRA_CA_CERTS"], format!("/{LOCAL}"));
        assert_eq!(
            fs::read_to_string(&bundle).unwrap(),
            cert("system") + &cert("one")
        );
        install(root.path(), &(cert("two") + &cert("three"))).unwrap();
        let text = fs::read_to_string(&bundle).unwrap();
        assert_eq!(text, cert("system") + &cert("two") + &cert("three"));
        let local = fs::read_to_string(root.path().join(LOCAL)).unwrap();
        assert_eq!(local, cert("two") + &cert("three"));
    }

    #[test]
    fn without_a_bundle_of_the_system_no_program_is_sent_to_ours() {
        let root = tempfile::tempdir().unwrap();
        let vars = install(root.path(), &cert("one")).unwrap();
        assert_eq!(
            vars.into_keys().collect::<Vec<_>>(),
            ["NODE_EXTRA_CA_CERTS"]
        );
    }

    #[test]
    fn text_without_certificates_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(install(root.path(), "hello"), Err(CaError::Empty)));
    }
}
