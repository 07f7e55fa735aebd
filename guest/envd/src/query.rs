//! Query strings.

/// The decoded parameters of a request, first value of each name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string without its question mark. Malformed pairs are left out.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .filter_map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((decode(name)?, decode(value)?))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Undoes percent and plus encoding; `None` for a bad escape or text that isn't UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded_and_the_first_wins() {
        let query = Query::parse("path=%2Ftmp%2Fa+b.txt&username=&path=x&bad=%zz&flag");
        assert_eq!(query.get("path"), Some("/tmp/a b.txt"));
        assert_eq!(query.get("username"), Some(""));
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("bad"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_queries_never_panic(text in ".{0,80}") {
            let _ = Query::parse(&text);
        }
    }
}
