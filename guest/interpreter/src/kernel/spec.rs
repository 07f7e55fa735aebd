//! Installed kernels: directories with a `kernel.json`, searched as Jupyter does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest `kernel.json` in bytes.
const MAX_SPEC: u64 = 1 << 20;

/// How a kernel is told to stop a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterruptMode {
    /// SIGINT to its process group.
    #[default]
    Signal,
    /// A message on its control channel.
    Message,
}

/// How a kernel is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Unix sockets in a directory of the kernel's user.
    Ipc,
    /// Ports of the loopback interface.
    Tcp,
}

/// An installed kernel.
#[derive(Debug, Clone, Deserialize)]
pub struct KernelSpec {
    /// Its directory's name.
    #[serde(skip)]
    pub name: String,
    /// Its directory.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Command line with `{connection_file}` and `{resource_dir}`.
    pub argv: Vec<String>,
    /// Language that it runs.
    #[serde(default)]
    pub language: String,
    /// Extra environment; `${NAME}` stands for a variable.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How a cell is interrupted.
    #[serde(default)]
    pub interrupt_mode: InterruptMode,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    warren: WarrenMetadata,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct WarrenMetadata {
    transport: Option<Transport>,
    fence: Option<String>,
    replace_after_interrupts: Option<u32>,
}

impl KernelSpec {
    /// Code that prints `marker`, for kernels that tell the end of a cell before the last of
    /// its output: what they published before the marker is the cell's. `None` for kernels
    /// that keep order.
    #[must_use]
    pub fn fence(&self, marker: &str) -> Option<String> {
        let fence = self.metadata.warren.fence.as_ref()?;
        Some(fence.replace("{marker}", &format!("\"{marker}\"")))
    }

    /// After how many interrupts without effect the kernel is replaced, for kernels that can't
    /// stop every cell. `None` for those that can: what they run then wants to go on.
    #[must_use]
    pub fn replace_after_interrupts(&self) -> Option<u32> {
        self.metadata.warren.replace_after_interrupts
    }

    /// How the kernel is reached: as its metadata says (`warren.transport`), else by Unix
    /// sockets if it is one known to take them, else by ports.
    #[must_use]
    pub fn transport(&self) -> Transport {
        const IPC_MODULES: [&str; 2] = ["ipykernel_launcher", "bash_kernel"];
        let knows_ipc = || {
            let known = self
                .argv
                .iter()
                .any(|arg| IPC_MODULES.contains(&arg.as_str()));
            if known {
                Transport::Ipc
            } else {
                Transport::Tcp
            }
        };
        self.metadata.warren.transport.unwrap_or_else(knows_ipc)
    }
}

/// Where kernels are looked for, in order.
#[derive(Debug, Clone)]
pub struct SpecDirs(Vec<PathBuf>);

impl SpecDirs {
    /// Makes a list of directories that hold kernels' directories.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self(dirs)
    }

    /// Jupyter's places: `JUPYTER_PATH`, the user's, the installation's of the `python3` on
    /// the search path, and the system's.
    #[must_use]
    pub fn of_system(jupyter_path: Option<&str>, home: &str, path: Option<&str>) -> Self {
        let mut roots: Vec<PathBuf> = Vec::new();
        roots.extend(
            jupyter_path
                .unwrap_or_default()
                .split(':')
                .filter(|p| !p.is_empty())
                .map(PathBuf::from),
        );
        roots.push(Path::new(home).join(".local/share/jupyter"));
        let bins = path.unwrap_or_default().split(':').map(Path::new);
        let python = bins
            .filter(|bin| bin.join("python3").exists())
            .find_map(Path::parent);
        roots.extend(python.map(|prefix| prefix.join("share/jupyter")));
        roots.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
        let mut dirs: Vec<PathBuf> = Vec::new();
        for root in roots {
            let dir = root.join("kernels");
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        Self(dirs)
    }

    /// Finds the kernel of a language: one of that name, of a usual name, or of that
    /// language. `None` if none is installed.
    ///
    /// # Errors
    /// The kernel's description can't be read.
    pub fn find(&self, language: &str) -> io::Result<Option<KernelSpec>> {
        // Names become parts of paths.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if language.is_empty() || language.starts_with('.') || !language.chars().all(plain) {
            return Ok(None);
        }
        for name in usual_names(language).iter().copied().chain([language]) {
            for dir in &self.0 {
                if let Some(spec) = load(&dir.join(name), name)? {
                    return Ok(Some(spec));
                }
            }
        }
        self.find_by_language(language)
    }

    fn find_by_language(&self, language: &str) -> io::Result<Option<KernelSpec>> {
        for dir in &self.0 {
            let Ok(entries) = std::fs::read_dir(dir) else {
                continue;
            };
            let mut names: Vec<_> = entries
                .flatten()
                .filter_map(|e| e.file_name().into_string().ok())
                .collect();
            names.sort();
            for name in names {
                // Somebody else's broken kernel is no reason to fail here.
                if let Ok(Some(spec)) = load(&dir.join(&name), &name)
                    && spec.language.eq_ignore_ascii_case(language)
                {
                    return Ok(Some(spec));
                }
            }
        }
        Ok(None)
    }
}

/// Names under which kernels of a language are usually installed.
fn usual_names(language: &str) -> &'static [&'static str] {
    match language {
        "python" => &["python3"],
        "javascript" => &["javascript", "deno"],
        "r" => &["ir"],
        "java" => &["java", "jjava"],
        _ => &[],
    }
}

fn load(dir: &Path, name: &str) -> io::Result<Option<KernelSpec>> {
    let file = match File::open(dir.join("kernel.json")) {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    let mut text = String::new();
    file.take(MAX_SPEC).read_to_string(&mut text)?;
    let mut spec: KernelSpec = serde_json::from_str(&text).map_err(|e| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {e}", dir.display()),
        )
    })?;
    name.clone_into(&mut spec.name);
    dir.clone_into(&mut spec.dir);
    Ok(Some(spec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, name: &str, json: &str) {
        let dir = root.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("kernel.json"), json).unwrap();
    }

    #[test]
    fn kernels_are_found_by_usual_name_own_name_and_language() {
        let root = tempfile::tempdir().unwrap();
        install(
            root.path(),
            "python3",
            r#"{"argv":["p"],"language":"python"}"#,
        );
        install(
            root.path(),
            "deno",
            r#"{"argv":["d"],"interrupt_mode":"message","metadata":{"warren":{"transport":"ipc"}}}"#,
        );
        install(root.path(), "broken", "{");
        install(root.path(), "zed", r#"{"argv":["z"],"language":"Forth"}"#);
        let dirs = SpecDirs::new(vec!["/nowhere".into(), root.path().to_owned()]);
        let name = |language| dirs.find(language).unwrap().map(|spec| spec.name);
        assert_eq!(name("python").as_deref(), Some("python3"));
        assert_eq!(name("javascript").as_deref(), Some("deno"));
        assert_eq!(name("zed").as_deref(), Some("zed"));
        assert_eq!(name("forth").as_deref(), Some("zed"));
        assert_eq!(name("cobol"), None);
        assert_eq!(name("../python3"), None);
        assert!(dirs.find("broken").is_err());
        let deno = dirs.find("deno").unwrap().unwrap();
        assert_eq!(deno.interrupt_mode, InterruptMode::Message);
        assert_eq!(deno.transport(), Transport::Ipc);
        assert_eq!(
            dirs.find("zed").unwrap().unwrap().transport(),
            Transport::Tcp
        );
    }

    #[test]
    fn the_installation_of_the_found_python_is_searched() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("bin")).unwrap();
        std::fs::write(root.path().join("bin/python3"), "").unwrap();
        let path = format!("/nowhere:{}/bin", root.path().display());
        let dirs = SpecDirs::of_system(Some("/a:/b"), "/home/u", Some(&path));
        let expected = [
            PathBuf::from("/a/kernels"),
            PathBuf::from("/b/kernels"),
            PathBuf::from("/home/u/.local/share/jupyter/kernels"),
            root.path().join("share/jupyter/kernels"),
            PathBuf::from("/usr/local/share/jupyter/kernels"),
            PathBuf::from("/usr/share/jupyter/kernels"),
        ];
        assert_eq!(dirs.0, expected);
    }
}
