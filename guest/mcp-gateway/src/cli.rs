//! The command line, which the official SDKs write.

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the servers of these settings, in JSON, and return once they answer.
    Start(String),
    /// The same in this process, until it is killed; for the program itself.
    Serve,
    /// Fetch the packages of these servers.
    Pull(Vec<String>),
}

/// A command line that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("usage: mcp-gateway --config JSON | mcp-gateway pull NAME…")]
pub struct UsageError;

/// Reads the words after the program's name.
///
/// # Errors
/// [`UsageError`]
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Command, UsageError> {
    let words: Vec<String> = words.into_iter().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--config", config] => Ok(Command::Start(config.to_owned())),
        ["serve"] => Ok(Command::Serve),
        ["pull", ref names @ ..] if !names.is_empty() => Ok(Command::Pull(
            names.iter().map(ToString::to_string).collect(),
        )),
        [word] if word.starts_with("--config=") => {
            Ok(Command::Start(word["--config=".len()..].to_owned()))
        }
        _ => Err(UsageError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clients_write_is_understood() {
        let parse = |words: &[&str]| parse(words.iter().map(ToString::to_string));
        let start = Command::Start("{}".to_owned());
        assert_eq!(parse(&["--config", "{}"]).unwrap(), start);
        assert_eq!(parse(&["--config={}"]).unwrap(), start);
        let pull = Command::Pull(vec!["exa".to_owned(), "time".to_owned()]);
        assert_eq!(parse(&["pull", "exa", "time"]).unwrap(), pull);
        for bad in [&[][..], &["pull"], &["--config"], &["x"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
