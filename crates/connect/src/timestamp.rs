//! Points in time: the protobuf message, its RFC 3339 text, and the calendar behind it.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SECONDS_PER_DAY: i64 = 86_400;

/// `google.protobuf.Timestamp`: seconds and nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub struct Timestamp {
    /// Whole seconds since 1970, negative before.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A time in the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CivilTime {
    /// Year.
    pub year: i64,
    /// Month from 1.
    pub month: u8,
    /// Day from 1.
    pub day: u8,
    /// Hour from 0.
    pub hour: u8,
    /// Minute from 0.
    pub minute: u8,
    /// Second from 0.
    pub second: u8,
    /// Day of the week, Sunday is 0.
    pub weekday: u8,
}

impl CivilTime {
    /// Converts seconds since 1970.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let rest = seconds.rem_euclid(SECONDS_PER_DAY);
        // Howard Hinnant's algorithm: years start in March, eras have 400 years.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        Self {
            year,
            month: small(month),
            day: small(doy - (153 * mp + 2) / 5 + 1),
            hour: small(rest / 3_600),
            minute: small(rest / 60 % 60),
            second: small(rest % 60),
            weekday: small((days + 4).rem_euclid(7)),
        }
    }

    /// Converts to seconds since 1970. Fields beyond their range carry over.
    #[must_use]
    pub fn to_unix(self) -> i64 {
        let month = i64::from(self.month);
        let year = self.year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let yoe = year.rem_euclid(400);
        let mp = if month > 2 { month - 3 } else { month + 9 };
        let doy = (153 * mp + 2) / 5 + i64::from(self.day) - 1;
        let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
        let days = era * 146_097 + doe - 719_468;
        days * SECONDS_PER_DAY
            + i64::from(self.hour) * 3_600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }
}

/// Calendar parts are below 100 by construction.
fn small(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(0)
}

impl Timestamp {
    /// Writes RFC 3339 in UTC with 0, 3, 6 or 9 digits after the second. `None` outside the
    /// years 1 to 9999.
    #[must_use]
    pub fn to_rfc3339(self) -> Option<String> {
        let t = CivilTime::from_unix(self.seconds);
        if !(1..=9999).contains(&t.year) || !(0..1_000_000_000).contains(&self.nanos) {
            return None;
        }
        let mut text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        );
        let nanos = self.nanos;
        if nanos == 0 {
        } else if nanos % 1_000_000 == 0 {
            text.push_str(&format!(".{:03}", nanos / 1_000_000));
        } else if nanos % 1_000 == 0 {
            text.push_str(&format!(".{:06}", nanos / 1_000));
        } else {
            text.push_str(&format!(".{nanos:09}"));
        }
        text.push('Z');
        Some(text)
    }

    /// Reads RFC 3339 with any offset and any number of digits after the second; those
    /// beyond nanoseconds are cut off.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (head, tail) = (bytes.get(..19)?, bytes.get(19..)?);
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, byte)| head[*at] != *byte)
            || !matches!(head[10], b'T' | b't' | b' ')
        {
            return None;
        }
        let two = |at: usize| u8::try_from(digits(head.get(at..at + 2)?)?).ok();
        let civil = CivilTime {
            year: digits(&head[..4])?,
            month: two(5)?,
            day: two(8)?,
            hour: two(11)?,
            minute: two(14)?,
            second: two(17)?,
            weekday: 0,
        };
        if civil.hour > 23 || civil.minute > 59 || civil.second > 60 {
            return None;
        }
        let normal = CivilTime::from_unix(civil.to_unix());
        if civil.second < 60 && (normal.month, normal.day) != (civil.month, civil.day) {
            return None;
        }
        let (nanos, zone) = fraction(tail)?;
        Some(Self {
            seconds: civil.to_unix() - offset(zone)?,
            nanos,
        })
    }
}

/// Reads an optional fraction of a second; returns nanoseconds and the rest.
fn fraction(tail: &[u8]) -> Option<(i32, &[u8])> {
    let Some(rest) = tail.strip_prefix(b".") else {
        return Some((0, tail));
    };
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let nanos = (0..9).fold(0, |sum, at| {
        let digit = if at < count { rest[at] - b'0' } else { 0 };
        sum * 10 + i32::from(digit)
    });
    Some((nanos, &rest[count..]))
}

/// Reads `Z` or `±hh:mm` as seconds east of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), hh @ .., b':', m1, m2] if hh.len() == 2 => {
            let (hours, minutes) = (digits(hh)?, digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let east = hours * 3_600 + minutes * 60;
            Some(if *sign == b'+' { east } else { -east })
        }
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0_i64, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + i64::from(byte - b'0'))
    })
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self
            .to_rfc3339()
            .ok_or_else(|| S::Error::custom("time outside the years 1 to 9999"))?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        let time = Timestamp::parse_rfc3339("2023-11-14T22:13:20.5+01:30").unwrap();
        assert_eq!((time.seconds, time.nanos), (1_699_994_600, 500_000_000));
        assert_eq!(time.to_rfc3339().unwrap(), "2023-11-14T20:43:20.500Z");
        assert_eq!(CivilTime::from_unix(784_111_777).weekday, 0);
        for bad in [
            "",
            "2023-02-30T00:00:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01T25:00:00Z",
        ] {
            assert_eq!(Timestamp::parse_rfc3339(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(seconds in -62_135_596_800_i64..253_402_300_799, nanos in 0..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            let text = time.to_rfc3339().unwrap();
            prop_assert_eq!(Timestamp::parse_rfc3339(&text), Some(time));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = Timestamp::parse_rfc3339(&text);
        }
    }
}
