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
    /// Directory for kernels' sockets and connection files. What a previous server left in
    /// it is removed.
    pub run_dir: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:49999".to_owned(),
            user: "user".to_owned(),
            cwd: "/home/user".to_owned(),
            agent: "127.0.0.1:49983".to_owned(),
            run_dir: PathBuf::from("/run/warren-interpreter"),
        }
    }
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// An unknown option.
    #[error("unknown option {0}; there are --listen, --user, --cwd, --agent and --run-dir")]
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
        let known = ["--listen", "--user", "--cwd", "--agent", "--run-dir"];
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
            _ => options.run_dir = value.into(),
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
        let options = parsed(&["--listen", "[::]:1", "--user=u", "--run-dir=/x"]).unwrap();
        assert_eq!(
            options,
            Options {
                listen: "[::]:1".into(),
                user: "u".into(),
                run_dir: "/x".into(),
                ..Options::default()
            }
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(parsed(&["--x=1"]), Err(CliError::Unknown("--x".into())));
        assert_eq!(parsed(&["--cwd"]), Err(CliError::NoValue("--cwd".into())));
    }
}
