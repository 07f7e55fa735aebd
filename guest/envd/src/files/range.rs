//! Byte ranges.

/// Most ranges of one request; more are answered with the whole content.
const MAX_RANGES: usize = 64;

/// A part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub start: u64,
    /// Bytes, at least one.
    pub len: u64,
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// Everything.
    Whole,
    /// These parts, at least one.
    Parts(Vec<Part>),
    /// Nothing that exists, or it can't be read.
    Unsatisfiable,
}

/// Reads a `Range` header for content of `size` bytes.
#[must_use]
pub fn parse(value: &str, size: u64) -> Ranges {
    let Some(list) = value.strip_prefix("bytes=") else {
        return Ranges::Unsatisfiable;
    };
    let mut parts = Vec::new();
    let mut beyond = false;
    for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
        match parse_one(item, size) {
            Some(Some(part)) => parts.push(part),
            Some(None) => beyond = true,
            None => return Ranges::Unsatisfiable,
        }
        if parts.len() > MAX_RANGES {
            return Ranges::Whole;
        }
    }
    if parts.is_empty() {
        return match (beyond, size) {
            // Nothing can be a part of an empty file.
            (true, 0) | (false, _) => Ranges::Whole,
            (true, _) => Ranges::Unsatisfiable,
        };
    }
    let total = parts
        .iter()
        .fold(0_u64, |sum, part| sum.saturating_add(part.len));
    // Overlapping ranges would make the answer larger than the file.
    if total > size {
        return Ranges::Whole;
    }
    Ranges::Parts(parts)
}

/// `None` if it can't be read, `Some(None)` if it starts beyond the end.
fn parse_one(item: &str, size: u64) -> Option<Option<Part>> {
    let (first, last) = item.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let suffix = number(last)?.min(size);
        return Some((suffix > 0).then(|| Part {
            start: size - suffix,
            len: suffix,
        }));
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if end < start {
        return None;
    }
    if start >= size {
        return Some(None);
    }
    let len = end.min(size - 1) - start + 1;
    Some(Some(Part { start, len }))
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(list: &[(u64, u64)]) -> Ranges {
        Ranges::Parts(
            list.iter()
                .map(|&(start, len)| Part { start, len })
                .collect(),
        )
    }

    #[test]
    fn single_and_several() {
        assert_eq!(parse("bytes=0-3", 10), parts(&[(0, 4)]));
        assert_eq!(parse("bytes=8-", 10), parts(&[(8, 2)]));
        assert_eq!(parse("bytes=-3", 10), parts(&[(7, 3)]));
        assert_eq!(parse("bytes=-30", 10), parts(&[(0, 10)]));
        assert_eq!(parse("bytes=0-0, 5-99", 10), parts(&[(0, 1), (5, 5)]));
        assert_eq!(parse("bytes=0-1,20-30", 10), parts(&[(0, 2)]));
    }

    #[test]
    fn refused_and_ignored() {
        for bad in [
            "bytes=10-",
            "bytes=3-1",
            "bytes=a-b",
            "lines=1-2",
            "bytes=-",
            "bytes=5",
        ] {
            assert_eq!(parse(bad, 10), Ranges::Unsatisfiable, "{bad}");
        }
        assert_eq!(parse("bytes=0-", 0), Ranges::Whole);
        assert_eq!(parse("bytes=0-9,0-9", 10), Ranges::Whole);
    }

    proptest! {
        #[test]
        fn parts_lie_inside(value in "bytes=[0-9,-]{0,30}", size in 0_u64..50) {
            if let Ranges::Parts(parts) = parse(&value, size) {
                for part in parts {
                    prop_assert!(part.len > 0 && part.start + part.len <= size);
                }
            }
        }
    }
}
