//! Lines, tables and JSON on standard output; warnings on standard error.

use std::io::{self, Write};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

/// Blanks between columns.
const GAP: usize = 3;

/// Prints a line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes bytes as they are, at once.
pub(crate) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Tells something on standard error.
pub(crate) fn warning(text: &str) {
    // A closed standard error leaves nobody to tell.
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Prints a value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// Prints what was done: the value for programs, or the sentence for people.
pub(crate) fn done(as_json: bool, value: &Value, sentence: &str) -> anyhow::Result<()> {
    if as_json {
        json(value)
    } else {
        Ok(line(sentence)?)
    }
}

/// Whether an error came of a reader of the output that went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// A moment in local time.
pub(crate) fn local(at: Timestamp) -> String {
    let zoned = at.to_zoned(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A table without borders; columns are as wide as what they show.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for row in render(header, rows) {
        writeln!(out, "{row}")?;
    }
    Ok(())
}

fn render(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let header: Vec<String> = header.iter().map(|&text| text.to_owned()).collect();
    let all = || std::iter::once(&header).chain(rows);
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    all()
        .map(|row| {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                text.push_str(cell);
                let blanks = width - cell.width() + GAP;
                text.extend(std::iter::repeat_n(' ', blanks));
            }
            text.truncate(text.trim_end().len());
            text
        })
        .collect()
}

/// Text of a sandbox made safe for a terminal: control characters are shown as escapes.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control() && c != '\t';
            let shown: Vec<char> = if escaped {
                c.escape_default().collect()
            } else {
                vec![c]
            };
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_display_width() {
        let rows = vec![
            vec!["日本".to_owned(), "x".to_owned()],
            vec!["abc".to_owned(), String::new()],
        ];
        assert_eq!(
            render(&["ID", "NAME"], &rows),
            ["ID     NAME", "日本   x", "abc"]
        );
    }

    #[test]
    fn a_sandbox_can_not_drive_the_terminal_through_its_log() {
        assert_eq!(printable("a\u{1b}[2Jb\tc\n"), "a\\u{1b}[2Jb\tc\\n");
    }
}
