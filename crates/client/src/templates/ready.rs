//! When a sandbox of a template counts as ready.

use std::time::Duration;

use crate::shell::quote;

/// A command that succeeds once a sandbox is ready, for [`Template::start`](super::Template)
/// and [`Template::ready`](super::Template).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready(String);

impl Ready {
    /// Something listens on a TCP or UDP port.
    #[must_use]
    pub fn port(port: u16) -> Self {
        Self(format!(r#"[ -n "$(ss -Htuln sport = :{port})" ]"#))
    }

    /// A URL is answered with this status.
    #[must_use]
    pub fn url(url: &str, status: u16) -> Self {
        let url = quote(url);
        Self(format!(
            r#"curl -s -o /dev/null -w "%{{http_code}}" {url} | grep -q "{status}""#
        ))
    }

    /// A process of this name runs.
    #[must_use]
    pub fn process(name: &str) -> Self {
        Self(format!("pgrep {} > /dev/null", quote(name)))
    }

    /// A file is there.
    #[must_use]
    pub fn file(path: &str) -> Self {
        Self(format!("[ -f {} ]", quote(path)))
    }

    /// This time is over, in whole seconds, at least one.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        Self(format!("sleep {}", time.as_secs().max(1)))
    }
}

impl From<Ready> for String {
    fn from(ready: Ready) -> Self {
        ready.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_commands() {
        for (ready, command) in [
            (Ready::port(80), r#"[ -n "$(ss -Htuln sport = :80)" ]"#),
            (
                Ready::url("http://h/?a=1&b", 204),
                r#"curl -s -o /dev/null -w "%{http_code}" 'http://h/?a=1&b' | grep -q "204""#,
            ),
            (Ready::process("nginx"), "pgrep nginx > /dev/null"),
            (Ready::file("/tmp/a b"), "[ -f '/tmp/a b' ]"),
            (Ready::after(Duration::from_millis(2900)), "sleep 2"),
            (Ready::after(Duration::ZERO), "sleep 1"),
        ] {
            assert_eq!(String::from(ready), command);
        }
    }
}
