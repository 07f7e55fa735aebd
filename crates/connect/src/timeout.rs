//! The time limit of a call.

use std::time::Duration;

use crate::{Code, Error};

/// Longest accepted value in digits.
const MAX_DIGITS: usize = 10;

/// Reads the value of `Connect-Timeout-Ms`.
///
/// # Errors
/// `invalid_argument` unless it is a decimal of at most ten digits.
pub fn parse_timeout(value: &[u8]) -> Result<Duration, Error> {
    let fail = |why: &str| {
        let shown = String::from_utf8_lossy(value);
        Error::new(
            Code::InvalidArgument,
            format!("parse timeout: {why}: {shown:?}"),
        )
    };
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(fail("not a decimal number"));
    }
    if value.len() > MAX_DIGITS {
        return Err(fail("more than ten digits"));
    }
    let millis = value
        .iter()
        .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(Duration::from_millis(millis))
}

/// Writes the value of `Connect-Timeout-Ms`, at least 1 and at most ten digits.
#[must_use]
pub fn format_timeout(limit: Duration) -> String {
    limit.as_millis().clamp(1, 9_999_999_999).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_digits_at_most() {
        assert_eq!(parse_timeout(b"60000").unwrap(), Duration::from_secs(60));
        assert!(parse_timeout(b"9999999999").is_ok());
        for bad in ["", "abc", "-1", "1.5", "10000000000", "+1"] {
            let error = parse_timeout(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
            assert!(error.message.starts_with("parse timeout:"), "{error}");
        }
        assert_eq!(format_timeout(Duration::ZERO), "1");
    }
}
