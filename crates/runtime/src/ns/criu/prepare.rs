//! A private root of tools, where the distribution's CRIU is too old: the packages of a newer
//! Debian, unpacked and run by their own loader.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::RuntimeError;

/// Name of the root among the tools.
const ROOT: &str = "criu";
/// The first Debian with a version that will do.
const SUITE: &str = "sid";

/// Loader and arguments of the CRIU in a root of tools, if there is one.
pub(super) fn locate(tools: &Path) -> Option<(PathBuf, Vec<String>)> {
    let usr = tools.join(ROOT).join("usr");
    let program = usr.join("sbin/criu");
    if !program.exists() {
        return None;
    }
    let libraries = fs::read_dir(usr.join("lib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))?;
    let loader = fs::read_dir(&libraries)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ld-linux") && name.contains(".so.")
        })?;
    let words = ["--library-path".into(), libraries, program];
    let words = words.map(|path: PathBuf| path.to_string_lossy().into_owned());
    Some((loader, words.to_vec()))
}

/// Makes the root of tools with CRIU in `tools` unless it is there, from the packages of
/// `mirror`. Blocks for the download, some 15 MB; interrupted, it leaves only a draft.
///
/// # Errors
/// [`RuntimeError::Step`] with the last words of `mmdebstrap`.
pub fn prepare_tools(tools: &Path, mirror: &str) -> Result<(), RuntimeError> {
    let step = |source| RuntimeError::Step {
        step: "prepare CRIU".to_owned(),
        source,
    };
    if locate(tools).is_some() {
        return Ok(());
    }
    let draft = tools.join(format!(".{ROOT}-{}", std::process::id()));
    fs::create_dir_all(tools).map_err(step)?;
    let output = Command::new("mmdebstrap")
        .args(["--variant=extract", "--include=criu,libc6", "--quiet"])
        // A mirror that stands still is as good.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(SUITE)
        .args([draft.as_os_str(), mirror.as_ref()])
        .stdin(Stdio::null())
        .output()
        .map_err(step)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().rfind(|line| line.starts_with("E:"));
        // The first failure is the one to tell.
        let _removed = fs::remove_dir_all(&draft);
        let text = last.unwrap_or("mmdebstrap failed").to_owned();
        return Err(step(io::Error::other(text)));
    }
    match fs::rename(&draft, tools.join(ROOT)) {
        // Another process was faster.
        Err(_) if locate(tools).is_some() => fs::remove_dir_all(&draft).map_err(step),
        other => other.map_err(step),
    }
}
