//! `warren sandbox logs`.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::process::ExitCode;

use jiff::Timestamp;
use warren_client::{Client, LogLevel, LogQuery, LogRecord};

use super::found;
use super::inspect::{FOLLOW, is_running};
use crate::cli::sandbox::{Format, Level, Logs};
use crate::print::{line, printable, warning};

/// Shows the log of a sandbox.
pub(super) async fn run(client: &Client, args: Logs, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut query = LogQuery {
        // All that is kept, from the first line on.
        from: Some(Timestamp::UNIX_EPOCH),
        min_level: Some(match args.level {
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        }),
    };
    let mut printer = Printer {
        format: args.format.or_json(as_json),
        loggers: args.loggers,
        colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        seen: Seen::default(),
    };
    // Asked before the lines, so that none that came before the end is missed.
    loop {
        let running = !args.follow || is_running(client, &args.id).await?;
        let fresh = printer
            .seen
            .fresh(found(client.logs(&args.id, &query).await, &args.id)?);
        for record in &fresh {
            printer.print(record)?;
        }
        query.from = printer.seen.last.or(query.from);
        if !fresh.is_empty() {
            continue;
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        if !running {
            warning("Stopped printing logs — sandbox is closed");
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Tells lines that come again from new ones: a query begins at the moment of the last line,
/// which may have brothers.
#[derive(Debug, Default)]
struct Seen {
    last: Option<Timestamp>,
    /// Lines of the last millisecond.
    lines: HashSet<(Timestamp, String)>,
}

impl Seen {
    fn fresh(&mut self, records: Vec<LogRecord>) -> Vec<LogRecord> {
        let fresh: Vec<LogRecord> = records
            .into_iter()
            .filter(|record| !self.lines.contains(&key(record)))
            .collect();
        if let Some(last) = fresh.last() {
            let last = last.timestamp;
            let millisecond = last.as_millisecond();
            self.lines
                .retain(|(at, _)| at.as_millisecond() == millisecond);
            self.lines.extend(
                fresh
                    .iter()
                    .filter(|record| record.timestamp.as_millisecond() == millisecond)
                    .map(key),
            );
            self.last = Some(last);
        }
        fresh
    }
}

fn key(record: &LogRecord) -> (Timestamp, String) {
    (
        record.timestamp,
        format!("{}{:?}", record.message, record.fields),
    )
}

#[derive(Debug)]
struct Printer {
    format: Format,
    loggers: Vec<String>,
    colour: bool,
    seen: Seen,
}

impl Printer {
    fn print(&self, record: &LogRecord) -> anyhow::Result<()> {
        let logger = record
            .fields
            .get("logger")
            .map_or("sandbox", String::as_str);
        if !self.loggers.is_empty() && !self.loggers.iter().any(|prefix| logger.starts_with(prefix))
        {
            return Ok(());
        }
        match self.format {
            Format::Json => line(&serde_json::to_string(record)?)?,
            Format::Pretty => line(&pretty(record, self.colour))?,
        }
        Ok(())
    }
}

fn pretty(record: &LogRecord, colour: bool) -> String {
    let (word, code) = match record.level {
        LogLevel::Debug => ("DEBUG", "37"),
        LogLevel::Info => ("INFO ", "32"),
        LogLevel::Warn => ("WARN ", "33"),
        LogLevel::Error => ("ERROR", "31"),
    };
    let word = if colour {
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    } else {
        word.to_owned()
    };
    let at = record.timestamp.strftime("%Y-%m-%d %H:%M:%S%.3fZ");
    let mut out = format!("[{at}] {word} {}", printable(&record.message));
    for (name, value) in &record.fields {
        out.push_str(&format!(" {}={}", printable(name), printable(value)));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn record(micros: i64, message: &str) -> LogRecord {
        LogRecord {
            timestamp: Timestamp::from_microsecond(micros).unwrap(),
            level: LogLevel::Info,
            message: message.to_owned(),
            fields: BTreeMap::new(),
        }
    }

    #[test]
    fn a_line_is_fresh_once_though_its_millisecond_is_asked_for_again() {
        let mut seen = Seen::default();
        assert_eq!(
            seen.fresh(vec![record(1000, "a"), record(2000, "b")]).len(),
            2
        );
        let again = vec![record(2000, "b"), record(2001, "c"), record(3000, "d")];
        let fresh = seen.fresh(again);
        assert_eq!(fresh, [record(2001, "c"), record(3000, "d")]);
        assert!(seen.fresh(vec![record(3000, "d")]).is_empty());
    }

    #[test]
    fn a_pretty_line_has_time_level_message_and_fields() {
        let mut record = record(1_000, "hi\u{7}");
        record.fields.insert("pid".to_owned(), "7".to_owned());
        assert_eq!(
            pretty(&record, false),
            "[1970-01-01 00:00:00.001Z] INFO  hi\\u{7} pid=7"
        );
    }
}
