//! The command line.

use std::path::PathBuf;

/// How the server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Address to listen on.
    pub listen: String,
    /// User that kernels run as when the server is root.
    pub user: String,
    /// Directory that contexts start in.
    pub cwd: String,
    /// Address of the sandbox's agent.
    pub agent: String,
    /// Address of the service by which the host tells the sandbox about itself.
    pub host: String,
    /// Directory for kernels' sockets and connection files. What a previous server left in
    /// it is removed.
    pub run_dir: PathBuf,
    /// File that tells which sandbox this is.
    pub identity: PathBuf,
    /// Wait until the server that listens there is ready, and serve nothing.
    pub wait: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:49999".to_owned(),
            user: "user".to_owned(),
            cwd: "/home/user".to_owned(),
            agent: "127.0.0.1:49983".to_owned(),
            host: "192.0.2.1:80".to_owned(),
            run_dir: PathBuf::from("/run/warren-interpreter"),
            identity: PathBuf::from("/run/e2b/.E2B_SANDBOX_ID"),
            wait: false,
        }
    }
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// An unknown option.
    #[error(
        "unknown option {0}; there are --listen, --user, --cwd, --agent, --host, --run-dir, --identity and \
         --wait"
    )]
    Unknown(String),
    /// An option without its value.
    #[error("{0} needs a value")]
    NoValue(String),
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// One is unknown or lacks its value.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, CliError> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let (name, given) = match arg.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        if name == "--wait" && given.is_none() {
            options.wait = true;
            continue;
        }
        let known = [
            "--listen",
            "--user",
            "--cwd",
            "--agent",
            "--host",
            "--run-dir",
            "--identity",
        ];
        if !known.contains(&name.as_str()) {
            return Err(CliError::Unknown(name));
        }
        let value = given.or_else(|| args.next());
        let value = value.ok_or_else(|| CliError::NoValue(name.clone()))?;
        match name.as_str() {
            "--listen" => options.listen = value,
            "--user" => options.user = value,
            "--cwd" => options.cwd = value,
            "--agent" => options.agent = value,
            "--host" => options.host = value,
            "--run-dir" => options.run_dir = value.into(),
            _ => options.identity = value.into(),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, CliError> {
        parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn options_have_values_either_way() {
        let options = parsed(&["--listen", "[::]:1", "--user=u", "--wait", "--run-dir=/x"]);
        let options = options.unwrap();
        assert_eq!(
            options,
            Options {
                listen: "[::]:1".into(),
                user: "u".into(),
                run_dir: "/x".into(),
                wait: true,
                ..Options::default()
            }
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parsed(&["--x=1"]), Err(CliError::Unknown("--x".into())));
        assert_eq!(
            parsed(&["--wait=1"]),
            Err(CliError::Unknown("--wait".into()))
        );
        assert_eq!(parsed(&["--cwd"]), Err(CliError::NoValue("--cwd".into())));
    }
}
