//! What a session runs: from the requests on its channel to a program.

use std::collections::BTreeMap;

use russh::Pty as Mode;
use warren_connect::process::Pty;
use warren_connect::process::pty::Size;

use crate::agent::Program;

/// Variables of one session, and the length of each.
const MAX_VARIABLES: usize = 128;
const MAX_NAME: usize = 128;
const MAX_VALUE: usize = 32 * 1024;
/// Most columns and rows: the agent's limit is that of the system.
const MAX_CELLS: u32 = u16::MAX as u32;

const SHELL: &str = "/bin/bash";
/// What the server brings into every sandbox.
pub(crate) const HELPER: &str = "/.warren/bin/sftp-server";

/// What a channel asked for before it asked for a program.
#[derive(Debug, Default)]
pub(crate) struct Preparation {
    pub(crate) terminal: Option<Pty>,
    pub(crate) env: BTreeMap<String, String>,
}

/// Which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Shell,
    Line(String),
    Sftp,
}

/// A terminal of this size. Zero stands for what is usual.
pub(crate) fn terminal(columns: u32, rows: u32) -> Pty {
    let or = |count: u32, usual: u32| if count == 0 { usual } else { count };
    Pty {
        size: Some(Size {
            cols: or(columns, 80).min(MAX_CELLS),
            rows: or(rows, 24).min(MAX_CELLS),
        }),
    }
}

impl Preparation {
    /// Takes a variable. `false` if it is none, or there are too many.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> bool {
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name || value.len() > MAX_VALUE || value.contains('\0') {
            return false;
        }
        if self.env.len() >= MAX_VARIABLES && !self.env.contains_key(name) {
            return false;
        }
        self.env.insert(name.to_owned(), value.to_owned());
        true
    }

    /// Takes a terminal with its kind and size. Its modes are left as they are made: the
    /// client's own terminal is raw, and the usual ones suit every shell.
    pub(crate) fn set_terminal(&mut self, kind: &str, columns: u32, rows: u32, _: &[(Mode, u32)]) {
        self.terminal = Some(terminal(columns, rows));
        if !kind.is_empty() {
            self.set("TERM", kind);
        }
    }

    /// The program of a session, with what sessions of SSH have in their environment.
    pub(crate) fn program(mut self, wanted: Wanted, ends: &str) -> Program {
        let client: Vec<&str> = ends.split(' ').collect();
        if let [address, port, _, own] = client.as_slice() {
            self.set("SSH_CLIENT", &format!("{address} {port} {own}"));
        }
        self.set("SSH_CONNECTION", ends);
        if self.terminal.is_some() && !self.env.contains_key("TERM") {
            self.set("TERM", "xterm-256color");
        }
        let words = match wanted {
            Wanted::Shell => vec![SHELL.to_owned(), "-l".to_owned()],
            Wanted::Line(line) => vec![SHELL.to_owned(), "-c".to_owned(), line],
            Wanted::Sftp => vec![HELPER.to_owned()],
        };
        Program {
            words,
            env: self.env,
            terminal: self.terminal,
            has_input: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: &str = "10.0.0.1 5000 10.0.0.2 22";

    #[test]
    fn variables_are_taken_within_limits() {
        let mut preparation = Preparation::default();
        assert!(preparation.set("LANG", "C.UTF-8"));
        for (name, value) in [("", ""), ("1A", ""), ("A=B", ""), ("A", "a\0b")] {
            assert!(!preparation.set(name, value), "{name}");
        }
        for index in 0..2 * MAX_VARIABLES {
            preparation.set(&format!("V{index}"), "x");
        }
        assert_eq!(preparation.env.len(), MAX_VARIABLES);
        assert!(preparation.set("LANG", "C"));
    }

    #[test]
    fn a_shell_has_a_login_and_a_command_has_not() {
        let shell = Preparation::default().program(Wanted::Shell, ENDS);
        assert_eq!(shell.words, ["/bin/bash", "-l"]);
        assert_eq!(shell.env["SSH_CLIENT"], "10.0.0.1 5000 22");
        assert!(!shell.env.contains_key("TERM"));
        let mut prepared = Preparation::default();
        prepared.set_terminal("vt100", 0, 70_000, &[]);
        let line = prepared.program(Wanted::Line("id".to_owned()), ENDS);
        assert_eq!(line.words, ["/bin/bash", "-c", "id"]);
        assert_eq!(line.env["TERM"], "vt100");
        let size = line.terminal.and_then(|terminal| terminal.size).unwrap();
        assert_eq!((size.cols, size.rows), (80, 65_535));
    }
}
