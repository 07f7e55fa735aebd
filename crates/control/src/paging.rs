//! Cursors of paged lists: opaque to clients, base64url of time, id and order.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

/// Longest page, and the default.
pub(crate) const MAX_LIMIT: u32 = 100;
/// Longest cursor that is looked at.
const MAX_CURSOR: usize = 256;

/// Why a page is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Not a cursor of this list.
    #[error("Invalid next token")]
    Cursor,
    /// Out of range.
    #[error("validation error: limit must be between 1 and {MAX_LIMIT}")]
    Limit,
}

/// The last element of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Its time.
    pub(crate) at: Timestamp,
    /// Its id.
    pub(crate) id: String,
    /// Letter of the list's order.
    pub(crate) order: char,
}

impl Cursor {
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!(
            "{}.{}.{}",
            self.order,
            self.at.as_microsecond(),
            self.id
        ))
    }

    pub(crate) fn decode(text: &str, order: char) -> Result<Self, PageError> {
        if text.len() > MAX_CURSOR {
            return Err(PageError::Cursor);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| PageError::Cursor)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| PageError::Cursor)?;
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(PageError::Cursor);
        if next()?.parse() != Ok(order) {
            return Err(PageError::Cursor);
        }
        let micros = next()?.parse().map_err(|_| PageError::Cursor)?;
        let at = Timestamp::from_microsecond(micros).map_err(|_| PageError::Cursor)?;
        Ok(Self {
            at,
            id: next()?.to_owned(),
            order,
        })
    }
}

/// Checks the length of a page.
pub(crate) fn limit(asked: Option<i64>) -> Result<usize, PageError> {
    let limit = asked.unwrap_or(i64::from(MAX_LIMIT));
    if !(1..=i64::from(MAX_LIMIT)).contains(&limit) {
        return Err(PageError::Limit);
    }
    usize::try_from(limit).map_err(|_| PageError::Limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_of_another_order_is_refused() {
        let cursor = Cursor {
            at: Timestamp::UNIX_EPOCH,
            id: "i1".to_owned(),
            order: 'd',
        };
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text, 'd'), Ok(cursor));
        assert_eq!(Cursor::decode(&text, 'a'), Err(PageError::Cursor));
        assert_eq!(Cursor::decode("garbage", 'd'), Err(PageError::Cursor));
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        assert_eq!(limit(None), Ok(100));
        assert_eq!(limit(Some(1)), Ok(1));
        for bad in [0, 101, -1, i64::MAX] {
            assert_eq!(limit(Some(bad)), Err(PageError::Limit));
        }
    }

    proptest! {
        #[test]
        fn cursors_survive_the_trip(micros in 0i64..4_000_000_000_000_000, id in "[a-z0-9.-]{1,40}") {
            let at = Timestamp::from_microsecond(micros).unwrap();
            let cursor = Cursor { at, id, order: 'a' };
            prop_assert_eq!(Cursor::decode(&cursor.encode(), 'a'), Ok(cursor));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = Cursor::decode(&text, 'a');
        }
    }
}
