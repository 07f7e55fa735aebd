//! Certificates that the host wants the guest to trust.
//!
//! They are kept in the system's bundle, which programs read, and as a local certificate,
//! from which the guest's own tools rebuild that bundle. The local copy also says which
//! blocks of the bundle are ours when a new set replaces them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::env::Vars;

const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const LOCAL: &str = "usr/local/share/ca-certificates/e2b-ca.crt";
/// What OpenSSL reads by itself, where Debian has put it.
const DEFAULT: &str = "usr/lib/ssl/cert.pem";
const NODE: &str = "NODE_EXTRA_CA_CERTS";
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

/// Replaces the certificates that were installed before by those in `pem`.
pub(crate) fn install(root: &Path, pem: &str) -> Result<(), CaError> {
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
    link_default(root)
}

/// Lets programs that go by OpenSSL's own defaults find the bundle, too: those that ran
/// before it was needed, and those that were started without our variables.
fn link_default(root: &Path) -> Result<(), CaError> {
    let link = root.join(DEFAULT);
    let has_openssl = link.parent().is_some_and(Path::is_dir);
    if !has_openssl || link.symlink_metadata().is_ok() {
        return Ok(());
    }
    symlink(Path::new("/").join(BUNDLE), link).map_err(|e| CaError::Write(DEFAULT, e))
}

/// The variables by which programs that have certificates of their own find the system's.
/// They are the same before and after a certificate is installed, so that a program which
/// runs already finds it as soon as it reads the file again.
pub(crate) fn variables(root: &Path) -> Vars {
    let is_ours = root.join(LOCAL).exists();
    if !is_whole(root, is_ours).unwrap_or(false) {
        // Programs take these instead of those that they know, so there must be more in it
        // than ours; Node.js takes them beside.
        let node = is_ours.then(|| (NODE.to_owned(), format!("/{LOCAL}")));
        return node.into_iter().collect();
    }
    let named = |name: &str| (name.to_owned(), format!("/{BUNDLE}"));
    [NODE, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "DENO_CERT"]
        .map(named)
        .into()
}

/// Whether the bundle has the system's certificates.
fn is_whole(root: &Path, is_ours: bool) -> Result<bool, CaError> {
    if !is_ours {
        let found = fs::metadata(root.join(BUNDLE));
        return Ok(found.is_ok_and(|bundle| bundle.is_file() && bundle.len() > 0));
    }
    let (bundle, ours) = (read(root, BUNDLE)?, read(root, LOCAL)?);
    Ok(blocks(&bundle).count() > blocks(&ours).count())
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
        install(root.path(), &cert("one")).unwrap();
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
    fn programs_are_led_to_the_bundle_before_and_after() {
        let root = tempfile::tempdir().unwrap();
        assert!(variables(root.path()).is_empty());
        let bundle = root.path().join(BUNDLE);
        fs::create_dir_all(bundle.parent().unwrap()).unwrap();
        fs::write(&bundle, cert("system")).unwrap();
        let before = variables(root.path());
        assert_eq!(before["SSL_CERT_FILE"], format!("/{BUNDLE}"));
        assert_eq!(before["NODE_EXTRA_CA_CERTS"], format!("/{BUNDLE}"));
        install(root.path(), &cert("one")).unwrap();
        assert_eq!(variables(root.path()), before);
        // Without a bundle, or with an empty one, they would find nothing there.
        fs::remove_file(root.path().join(LOCAL)).unwrap();
        fs::write(&bundle, "").unwrap();
        assert!(variables(root.path()).is_empty());
    }

    #[test]
    fn without_a_bundle_of_the_system_no_program_is_sent_to_ours() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), &cert("one")).unwrap();
        let vars = variables(root.path());
        let expected = Vars::from([(NODE.to_owned(), format!("/{LOCAL}"))]);
        assert_eq!(vars, expected);
    }

    #[test]
    fn the_default_of_openssl_is_linked_once_and_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join(DEFAULT);
        install(root.path(), &cert("one")).unwrap();
        assert!(link.symlink_metadata().is_err(), "there is no OpenSSL");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        install(root.path(), &cert("one")).unwrap();
        let target = fs::read_link(&link).unwrap();
        assert_eq!(target, Path::new("/").join(BUNDLE));
        fs::remove_file(&link).unwrap();
        fs::write(&link, "own").unwrap();
        install(root.path(), &cert("two")).unwrap();
        assert_eq!(fs::read_to_string(&link).unwrap(), "own");
    }

    #[test]
    fn text_without_certificates_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(install(root.path(), "hello"), Err(CaError::Empty)));
    }
}
