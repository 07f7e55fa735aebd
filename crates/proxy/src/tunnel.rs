//! Connections that switched protocols: bytes both ways until they end.

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional_with_sizes};
use tracing::debug;
use warren_service::{CancellationToken, Chain};

use crate::exchange::Started;

/// Memory of one tunnel in each direction.
const BUFFER: usize = 64 * 1024;

/// A switch of protocols that a client asked for.
pub(crate) struct Upgrade {
    pub(crate) protocol: HeaderValue,
    pub(crate) client: OnUpgrade,
}

/// Joins client and guest until both directions are done, `run` ends or `cut` is ordered.
pub(crate) async fn tunnel(
    client: OnUpgrade,
    started: Started,
    run: CancellationToken,
    cut: CancellationToken,
) {
    let joined = async {
        let (mut guest, read_ahead, _permits) = match started.switch().await {
            Ok(switched) => switched,
            Err(error) => {
                debug!(error = %Chain(&error), "guest did not complete the protocol switch");
                return;
            }
        };
        let mut client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                debug!(error = %Chain(&error), "client did not complete the protocol switch");
                return;
            }
        };
        let copied = async {
            client.write_all(&read_ahead).await?;
            copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER, BUFFER).await
        };
        if let Err(error) = copied.await {
            debug!(%error, "tunnel broke off");
        }
    };
    // Dropping the copy closes both connections.
    tokio::select! {
        biased;
        () = run.cancelled() => {}
        () = cut.cancelled() => {}
        () = joined => {}
    }
}
