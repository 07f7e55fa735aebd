//! The terminal that this program runs on.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use warren_client::TerminalSize;

/// Whether standard input is a terminal.
pub(super) fn is_present() -> bool {
    io::stdin().is_terminal()
}

/// Its size now; 80 by 24 if it does not tell.
pub(super) fn size() -> TerminalSize {
    match tcgetwinsize(io::stdin()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
        },
        _ => TerminalSize::default(),
    }
}

/// Standard input without the buffer that the standard library puts before it.
pub(super) fn input() -> io::Result<tokio::fs::File> {
    let own = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(File::from(own)))
}

/// Keys arrive as they are typed, uninterpreted, until this is dropped.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; then nobody misses its settings.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.before).ok();
    }
}
