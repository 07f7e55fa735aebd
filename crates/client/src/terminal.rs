//! Programs on a terminal.

use std::collections::BTreeMap;

use warren_connect::process::pty::Size;
use warren_connect::process::{ProcessConfig, Pty, StartRequest};

/// The size of a terminal in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

impl Default for TerminalSize {
    fn default() -> Self {
        Self {
            columns: 80,
            rows: 24,
        }
    }
}

impl From<TerminalSize> for Pty {
    fn from(size: TerminalSize) -> Self {
        Self {
            size: Some(Size {
                cols: size.columns.into(),
                rows: size.rows.into(),
            }),
        }
    }
}

/// An interactive login shell, or another program, on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    size: TerminalSize,
    program: Vec<String>,
    envs: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
}

impl Terminal {
    /// A login shell on a terminal that understands 256 colours and UTF-8.
    #[must_use]
    pub fn new(size: TerminalSize) -> Self {
        let envs = [
            ("TERM", "xterm-256color"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
        ];
        Self {
            size,
            program: ["/bin/bash", "-i", "-l"].map(str::to_owned).to_vec(),
            envs: envs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            cwd: None,
            user: None,
        }
    }

    /// Runs a line in a login shell instead of an interactive one.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.program = vec![
            "/bin/bash".to_owned(),
            "-l".to_owned(),
            "-c".to_owned(),
            line.into(),
        ];
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.envs.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, dir: Option<String>) -> Self {
        self.cwd = dir;
        self
    }

    /// Runs it as another user.
    #[must_use]
    pub fn user(mut self, name: Option<String>) -> Self {
        self.user = name;
        self
    }

    pub(crate) fn into_request(self) -> (StartRequest, Option<String>) {
        let mut words = self.program.into_iter();
        let request = StartRequest {
            process: Some(ProcessConfig {
                cmd: words.next().unwrap_or_default(),
                args: words.collect(),
                envs: self.envs,
                cwd: self.cwd,
            }),
            pty: Some(self.size.into()),
            tag: None,
            stdin: None,
        };
        (request, self.user)
    }
}
