//! The last words of a kernel's process: what it wrote outside the protocol.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept, in bytes.
const KEPT: usize = 4096;

/// The end of a process's output.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Reads `source` to its end and keeps the last of it.
    pub(crate) async fn collect(self, mut source: impl AsyncRead + Unpin) {
        let mut chunk = [0; 1024];
        while let Ok(n @ 1..) = source.read(&mut chunk).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&chunk[..n]);
            let surplus = kept.len().saturating_sub(KEPT);
            kept.drain(..surplus);
        }
    }

    /// What was kept, without surrounding white space.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = kept.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_end_is_kept() {
        let tail = Tail::default();
        let text = [vec![b'x'; 3 * KEPT], b" the end\n".to_vec()].concat();
        tail.clone().collect(text.as_slice()).await;
        let kept = tail.text();
        assert!(kept.ends_with("xx the end"));
        assert!(kept.len() <= KEPT);
    }
}
