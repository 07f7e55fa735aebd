//! Random numbers from the operating system, each time: those that a process has in advance
//! are the same in every sandbox that goes on from a capture of it.

use rand::TryRngCore;
use rand::rngs::OsRng;

/// Bytes that nobody else has.
#[expect(
    clippy::expect_used,
    reason = "a system without random numbers runs no sandbox"
)]
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng
        .try_fill_bytes(&mut bytes)
        .expect("the kernel gives random numbers");
    bytes
}

/// The same as text, two digits a byte.
pub(crate) fn hex<const N: usize>() -> String {
    ::hex::encode(bytes::<N>())
}
