//! Being asked to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask this program to end.
#[derive(Debug)]
pub(super) struct Signals {
    all: Vec<Signal>,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ];
        let all = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
        Ok(Self { all })
    }

    /// Waits for one of them.
    pub(super) async fn any(&mut self) {
        std::future::poll_fn(|context| {
            let came = self
                .all
                .iter_mut()
                .any(|signal| signal.poll_recv(context).is_ready());
            if came {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}
