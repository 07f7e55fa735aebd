//! A socket in the data directory, for the operator's commands on this machine. Whoever can
//! open it owns the data directory, so that nothing more is asked for.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::net::{UnixListener, UnixStream};
use warren_control::Control;
use warren_service::Tasks;

const NAME: &str = "admin.sock";

/// A path of the socket that is short enough for the kernel, however long that of the
/// directory is. Good for as long as the directory is held open.
fn short(dir: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd()))
}

/// Serves the operator's commands until the tasks are stopped. The data directory must be
/// locked by this process.
pub(crate) fn serve(data_dir: &Path, control: Arc<Control>, tasks: &Tasks) -> anyhow::Result<()> {
    let path = data_dir.join(NAME);
    let what = || format!("listen on {}", path.display());
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    let dir = File::open(data_dir)?;
    let listener = UnixListener::bind(short(&dir)).with_context(what)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600)).with_context(what)?;
    let router = warren_api::local_router(control);
    let stop = tasks.stop_token().clone();
    tasks.spawn(async move {
        let stopped = async move { stop.cancelled().await };
        let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
        if let Err(error) = serving.await {
            tracing::error!(%error, "the operator's socket is closed");
        }
        fs::remove_file(&path).ok();
    });
    Ok(())
}

/// Connects to a server that uses the data directory; `None` if none runs.
pub(crate) async fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    let dir = match File::open(data_dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match UnixStream::connect(short(&dir)).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
