//! Which sandbox this is. It changes under a running program when a capture goes on as another
//! sandbox.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;

/// Longest id that is told apart from others, in bytes.
const LONGEST: u64 = 256;

/// The place where the agent writes the sandbox's id.
#[derive(Debug)]
pub(crate) struct Identity(PathBuf);

impl Identity {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self(file)
    }

    /// The id, empty where there is none.
    pub(crate) fn now(&self) -> Vec<u8> {
        let mut id = Vec::new();
        // Whatever is there instead of a file, nobody waits for it.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.0);
        if let Ok(file) = file {
            // A part is as good as the whole to tell that it is another.
            let _ = file.take(LONGEST).read_to_end(&mut id);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_no_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        let identity = Identity::new(path.clone());
        assert_eq!(identity.now(), b"");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(identity.now(), b"");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [b'x'; 1000]).unwrap();
        assert_eq!(identity.now(), [b'x'; 256]);
    }
}
