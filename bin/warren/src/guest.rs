//! The in-sandbox programs that this binary carries.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use warren_template::interpreter::PROGRAMS;

static ENVD: &[u8] = include_bytes!(env!("WARREN_ENVD_PATH"));
static SFTP: &[u8] = include_bytes!(env!("WARREN_SFTP_SERVER_PATH"));
static INTERPRETER: &[u8] = include_bytes!(env!("WARREN_INTERPRETER_PATH"));
static MCP_GATEWAY: &[u8] = include_bytes!(env!("WARREN_MCP_GATEWAY_PATH"));

macro_rules! kernel_files {
    ($($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_bytes!(concat!("../../../guest/interpreter/kernels/", $path)),
        )),*]
    };
}

/// Files of kernels, by their path below the directory of kernels.
const KERNELS: &[(&str, &[u8])] = kernel_files![
    "javascript/kernel.json",
    "python/kernel.json",
    "python/launch.py",
    "python/warren_kernel/__init__.py",
    "python/warren_kernel/app.py",
    "python/warren_kernel/formatters.py",
    "python/warren_kernel/pillow.py",
    "python/warren_kernel/streams.py",
];

/// Where the programs are on this host.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The agent, process 1 of every sandbox.
    pub agent: PathBuf,
    /// A layer with the server of code-interpreter sandboxes and what its kernels need, and the
    /// gateway of MCP servers.
    pub layer: PathBuf,
}

/// Puts the programs into the data directory, under names that tell their content: sandboxes
/// that an older server started keep theirs.
pub(crate) fn unpack(data_dir: &Path) -> anyhow::Result<Programs> {
    let dir = data_dir.join("guest");
    Ok(Programs {
        agent: unpack_one(&dir, "envd", ENVD)?,
        layer: unpack_layer(&dir)?,
    })
}

/// Puts together the layer that all sandboxes have on top of their template's.
fn unpack_layer(dir: &Path) -> anyhow::Result<PathBuf> {
    let root = Path::new(PROGRAMS.trim_start_matches('/'));
    let mut files = vec![
        (root.join("bin/interpreter"), INTERPRETER, 0o555),
        (root.join("bin/mcp-gateway"), MCP_GATEWAY, 0o555),
        (root.join("bin/sftp-server"), SFTP, 0o555),
    ];
    for (path, content) in KERNELS {
        // The name that the kernel's own package uses: the first of a name is taken.
        let path = path.replacen("python/", "python3/", 1);
        let path = root.join("jupyter/kernels").join(path);
        files.push((path, *content, 0o444));
    }
    let mut hasher = Sha256::new();
    for (path, content, _) in &files {
        let path = path.as_os_str().as_encoded_bytes();
        for part in [path, *content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let layer = dir.join(format!("programs-{}", hex::encode(hasher.finalize())));
    let write = || -> io::Result<()> {
        if layer.is_dir() {
            return Ok(());
        }
        let temporary = dir.join("programs.tmp");
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        for (path, content, mode) in &files {
            let path = temporary.join(path);
            if let Some(parent) = path.parent() {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(0o755).create(parent)?;
            }
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(*mode)
                .open(&path)?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        fs::rename(&temporary, &layer)
    };
    write().with_context(|| format!("unpack the guest's programs to {}", layer.display()))?;
    Ok(layer)
}

fn unpack_one(dir: &Path, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
    let digest = hex::encode(Sha256::digest(content));
    let path = dir.join(format!("{name}-{digest}"));
    let write = || -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == content.len() as u64) {
            return Ok(());
        }
        let temporary = dir.join(format!("{name}.tmp"));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o555)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("unpack {name} to {}", path.display()))?;
    Ok(path)
}
