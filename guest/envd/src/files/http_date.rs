//! Dates in HTTP headers.

use warren_connect::CivilTime;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Writes a date; the argument is in Unix seconds.
pub(crate) fn format(seconds: i64) -> String {
    let t = CivilTime::from_unix(seconds);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
        DAYS[usize::from(t.weekday) % 7],
        t.day,
        MONTHS[(usize::from(t.month) + 11) % 12],
        t.year,
        t.hour,
        t.minute,
        t.second
    )
}

/// Reads a date in the one form that is in use, as Unix seconds.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let (_, rest) = text.split_once(", ")?;
    let mut fields = rest.split(' ');
    let day = fields.next()?.parse().ok()?;
    let name = fields.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? + 1;
    let year: u16 = fields.next()?.parse().ok()?;
    let mut clock = fields
        .next()?
        .split(':')
        .map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if fields.next() != Some("GMT") || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let civil = CivilTime {
        year: i64::from(year),
        month: u8::try_from(month).ok()?,
        day,
        hour,
        minute,
        second,
        weekday: 0,
    };
    Some(civil.to_unix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse(text), Some(784_111_777));
        assert_eq!(format(784_111_777), text);
        assert_eq!(parse("yesterday"), None);
    }
}
