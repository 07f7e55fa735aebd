//! Placeholders in the values of headers: what a value is put together from. Pure.

/// What every placeholder begins with.
const BEGIN: &str = "${e2b.";
const SECRET: &str = "secrets.";
const TOKEN: &str = "identity.tokens.";
/// Longest name of a secret.
const MAX_SECRET: usize = 128;

/// A part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Text as it is.
    Text(&'a str),
    /// The value of the secret of this name.
    Secret(&'a str),
    /// A fresh workload token of this name.
    Token(&'a str),
}

/// The parts of a value in order; `None` if a placeholder in it is malformed.
#[must_use]
pub fn parts(value: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = value;
    while let Some((text, after)) = rest.split_once(BEGIN) {
        let (inside, after) = after.split_once('}')?;
        let part = match (inside.strip_prefix(SECRET), inside.strip_prefix(TOKEN)) {
            (Some(name), _) if is_secret_name(name) => Part::Secret(name),
            (_, Some(name)) if is_token_name(name) => Part::Token(name),
            _ => return None,
        };
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Some(parts)
}

fn is_secret_name(name: &str) -> bool {
    let of_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=MAX_SECRET).contains(&name.len()) && name.bytes().all(of_name)
}

/// Whether a workload token can have this name: what a placeholder can hold.
#[must_use]
pub fn is_token_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_control() || c == '{' || c == '}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_taken_apart() {
        let all = "a ${e2b.secrets.k-1}${e2b.identity.tokens.my token} $b ${c}";
        let expected = [
            Part::Text("a "),
            Part::Secret("k-1"),
            Part::Token("my token"),
            Part::Text(" $b ${c}"),
        ];
        assert_eq!(parts(all).unwrap(), expected);
        assert_eq!(parts("").unwrap(), []);
        for bad in [
            "${e2b.",
            "${e2b.}",
            "${e2b.secrets.}",
            "${e2b.secrets.a b}",
            "${e2b.secrets.${e2b.secrets.a}}",
            "${e2b.identity.tokens.}",
            "${e2b.identity.tokens.a{}",
            "${e2b.nope.x}",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_all_there_was(value in "[${}e2b.scrtidnyokx ]{0,60}") {
            if let Some(parts) = parts(&value) {
                let text: String = parts.iter().map(|part| match part {
                    Part::Text(text) => (*text).to_owned(),
                    Part::Secret(name) => format!("{BEGIN}{SECRET}{name}}}"),
                    Part::Token(name) => format!("{BEGIN}{TOKEN}{name}}}"),
                }).collect();
                prop_assert_eq!(text, value);
            }
        }
    }
}
