//! The command line, in the form of the original: one or two dashes, value behind a space
//! or an equals sign.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::fd::RawFd;

/// Port when none is given.
const DEFAULT_PORT: u16 = 49983;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run(Options),
    /// Print the version.
    Version,
    /// Print the commit.
    Commit,
}

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// TCP port; 0 picks a free one.
    pub port: u16,
    /// Address to listen on.
    pub address: Ipv4Addr,
    /// Debug lines in the log.
    pub verbose: bool,
    /// `/init` sets the machine's clock: for guests with a clock of their own.
    pub set_clock: bool,
    /// Where to write the port once it is bound.
    pub ready_fd: Option<RawFd>,
    /// Where to write log lines.
    pub log_fd: Option<RawFd>,
    /// Where to read the secret that authorises `/init`.
    pub init_key_fd: Option<RawFd>,
    /// What the host lets the sandbox use, when its kernel tells of a larger machine.
    pub limits: Limits,
}

/// What the host lets the sandbox use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processors.
    pub cpus: Option<NonZeroU32>,
    /// Memory in MiB.
    pub memory_mib: Option<NonZeroU32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            address: Ipv4Addr::UNSPECIFIED,
            verbose: false,
            set_clock: false,
            ready_fd: None,
            log_fd: None,
            init_key_fd: None,
            limits: Limits::default(),
        }
    }
}

/// A command line that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// The flag is not one of ours.
    #[error("flag provided but not defined: {0}")]
    Unknown(String),
    /// The flag needs a value.
    #[error("flag needs an argument: -{0}")]
    Missing(String),
    /// The value does not fit.
    #[error("invalid value \"{value}\" for flag -{flag}")]
    Invalid {
        /// The flag.
        flag: String,
        /// Its value.
        value: String,
    },
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// An unknown flag, or a value that is missing or wrong.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let unknown = || UsageError::Unknown(arg.clone());
        let flag = arg.strip_prefix('-').ok_or_else(unknown)?;
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (name, inline) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let on = inline.as_deref() != Some("false");
        match name {
            "version" => return Ok(Command::Version),
            "commit" => return Ok(Command::Commit),
            "verbose" => options.verbose = on,
            "set-clock" => options.set_clock = on,
            "isnotfc" | "no-cgroups" => {}
            "port" | "address" | "ready-fd" | "log-fd" | "init-key-fd" | "cpus" | "memory-mib"
            | "cgroup-root" => {
                let value = inline
                    .or_else(|| args.next())
                    .ok_or_else(|| UsageError::Missing(name.to_owned()))?;
                let invalid = || UsageError::Invalid {
                    flag: name.to_owned(),
                    value: value.clone(),
                };
                let fd = || value.parse::<RawFd>().map(Some).map_err(|_| invalid());
                let count = || value.parse::<NonZeroU32>().map(Some).map_err(|_| invalid());
                match name {
                    "port" => options.port = value.parse().map_err(|_| invalid())?,
                    "address" => options.address = value.parse().map_err(|_| invalid())?,
                    "ready-fd" => options.ready_fd = fd()?,
                    "log-fd" => options.log_fd = fd()?,
                    "init-key-fd" => options.init_key_fd = fd()?,
                    "cpus" => options.limits.cpus = count()?,
                    "memory-mib" => options.limits.memory_mib = count()?,
                    _ => {}
                }
            }
            _ => return Err(unknown()),
        }
    }
    Ok(Command::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, UsageError> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn one_or_two_dashes() {
        let expected = Options {
            port: 5,
            log_fd: Some(7),
            verbose: true,
            ..Options::default()
        };
        assert_eq!(
            run(&[
                "-port",
                "5",
                "--log-fd=7",
                "-isnotfc",
                "--verbose",
                "-cgroup-root",
                "/x"
            ]),
            Ok(Command::Run(expected))
        );
        assert_eq!(run(&["--version"]), Ok(Command::Version));
        assert_eq!(run(&[]), Ok(Command::Run(Options::default())));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(matches!(run(&["-x"]), Err(UsageError::Unknown(_))));
        assert!(matches!(run(&["serve"]), Err(UsageError::Unknown(_))));
        assert!(matches!(run(&["-port"]), Err(UsageError::Missing(_))));
        for wrong in [["-port", "x"], ["-cpus", "0"], ["-memory-mib", "-1"]] {
            assert!(matches!(run(&wrong), Err(UsageError::Invalid { .. })));
        }
    }
}
