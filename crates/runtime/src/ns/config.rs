//! Settings of the namespace runtime.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of the namespace runtime.
#[derive(Debug, Clone)]
pub struct NsConfig {
    /// Where disks are kept; also what names the instance. One process may serve it.
    pub data_dir: PathBuf,
    /// Program that, started with [`super::HELPER_COMMAND`], calls [`super::helper_main`]
    /// before anything else, while it has a single thread.
    pub helper: PathBuf,
    /// Shims and disks to keep prepared. A boot beyond them waits for one to be made.
    pub prepared: usize,
    /// Networks in CIDR notation that sandboxes may reach although they are not public.
    pub allowed_egress: Vec<String>,
    /// Where clients reach the server under public names. It is all of the host that sandboxes
    /// may reach, since the names of other sandboxes lead there, too.
    pub edge: Option<SocketAddr>,
    /// How the layers of a sandbox are joined.
    pub overlay: Overlay,
}

/// How the layers of a sandbox are joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlay {
    /// By descriptor if the kernel can, else by path.
    #[default]
    Probe,
    /// By path, which all supported kernels can. For tests.
    ByPath,
}
