//! The metadata filter of lists. Clients encode each key and value, join them to
//! `k=v&k2=v2`, and encode the whole once more, beside the encoding of the query itself.

use std::collections::BTreeMap;

/// Why a filter can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// `%` without two hex digits behind it.
    #[error("invalid percent-encoding in '{0}'")]
    Encoding(String),
    /// Decodes to something else than UTF-8.
    #[error("'{0}' is not UTF-8")]
    Utf8(String),
    /// Not of the form `key=value`.
    #[error("'{0}' is not a pair of key and value")]
    Pair(String),
}

/// Reads the filter from the query value, decoded once.
pub(crate) fn parse(value: &str) -> Result<BTreeMap<String, String>, MetadataError> {
    let value = form_decode(value)?;
    if value.is_empty() {
        return Ok(BTreeMap::new());
    }
    value
        .split('&')
        .map(|pair| {
            let mut parts = pair.split('=');
            match (parts.next(), parts.next(), parts.next()) {
                (Some(key), Some(value), None) => Ok((form_decode(key)?, form_decode(value)?)),
                _ => Err(MetadataError::Pair(pair.to_owned())),
            }
        })
        .collect()
}

/// Whether `metadata` has all pairs of the filter.
pub(crate) fn matches(
    filter: &BTreeMap<String, String>,
    metadata: &BTreeMap<String, String>,
) -> bool {
    filter
        .iter()
        .all(|(key, value)| metadata.get(key) == Some(value))
}

fn form_decode(text: &str) -> Result<String, MetadataError> {
    let digit = |byte: Option<&u8>| byte.and_then(|&b| char::from(b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match (digit(bytes.get(at)), digit(bytes.get(at + 1))) {
                (Some(high), Some(low)) => {
                    decoded.push(u8::try_from(high * 16 + low).expect("two hex digits"));
                    at += 2;
                }
                _ => return Err(MetadataError::Encoding(text.to_owned())),
            },
            other => decoded.push(other),
        }
    }
    String::from_utf8(decoded).map_err(|_| MetadataError::Utf8(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use form_urlencoded::byte_serialize;
    use proptest::prelude::*;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn the_documented_example() {
        // On the wire: metadata=a%252520b%3Dc%252526d%25253De
        assert_eq!(parse("a%2520b=c%2526d%253De"), Ok(map(&[("a b", "c&d=e")])));
    }

    #[test]
    fn a_plain_filter_by_hand() {
        assert_eq!(parse("user=abc"), Ok(map(&[("user", "abc")])));
        assert_eq!(
            parse("user=abc&app=x"),
            Ok(map(&[("user", "abc"), ("app", "x")]))
        );
        assert_eq!(parse(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn malformed_filters_are_refused() {
        for bad in ["novalue", "a=b=c", "a=b&", "%", "%zz=1", "a=%2", "%25ff=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_pairs_must_match() {
        let metadata = map(&[("a", "1"), ("b", "2")]);
        assert!(matches(&map(&[("a", "1")]), &metadata));
        assert!(matches(&map(&[("a", "1"), ("b", "2")]), &metadata));
        assert!(!matches(&map(&[("a", "1"), ("b", "3")]), &metadata));
        assert!(!matches(&map(&[("c", "1")]), &metadata));
    }

    fn encode(text: &str) -> String {
        byte_serialize(text.as_bytes()).collect()
    }

    proptest! {
        #[test]
        fn whatever_clients_encode_is_found_again(
            pairs in proptest::collection::btree_map(".{0,12}", ".{0,12}", 0..5)
        ) {
            // Each part is encoded twice by clients, and the whole is a query value.
            let joined = pairs
                .iter()
                .map(|(k, v)| format!("{}={}", encode(&encode(k)), encode(&encode(v))))
                .collect::<Vec<_>>()
                .join("&");
            prop_assert_eq!(parse(&joined), Ok(pairs));
        }

        #[test]
        fn no_input_panics(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
