//! `Content-Disposition`, in both directions.

/// The parameters of a part's `Content-Disposition` that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disposition {
    /// Form field.
    pub name: Option<String>,
    /// File name with its directories.
    pub filename: Option<String>,
}

/// Reads a part's `Content-Disposition`: quoted strings with backslash escapes, raw UTF-8,
/// no percent decoding.
#[must_use]
pub fn parse(value: &str) -> Disposition {
    let mut found = Disposition::default();
    let Some((_, mut rest)) = value.split_once(';') else {
        return found;
    };
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().trim_start_matches(';').trim();
        let (text, after) = parameter_value(after.trim_start());
        let slot = if name.eq_ignore_ascii_case("name") {
            Some(&mut found.name)
        } else if name.eq_ignore_ascii_case("filename") {
            Some(&mut found.filename)
        } else {
            None
        };
        if let Some(slot) = slot.filter(|slot| slot.is_none()) {
            *slot = Some(text);
        }
        rest = after;
    }
    found
}

/// Reads a token or quoted string; returns it and what follows.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                // Browsers send Windows paths unescaped.
                Some((_, other)) => {
                    value.push('\\');
                    value.push(other);
                }
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    (value, "")
}

/// Writes the `Content-Disposition` of a download.
#[must_use]
pub fn inline(name: &str) -> String {
    if !name.is_ascii() {
        return format!("inline; filename*=utf-8''{}", percent_encode(name));
    }
    let token = !name.is_empty() && name.bytes().all(is_token);
    if token {
        return format!("inline; filename={name}");
    }
    let mut quoted = String::from("inline; filename=\"");
    for c in name.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(value: &str) -> (Option<String>, Option<String>) {
        let found = parse(value);
        (found.name, found.filename)
    }

    #[test]
    fn directories_and_escapes_are_kept() {
        let some = |name: &str, file: &str| (Some(name.to_owned()), Some(file.to_owned()));
        assert_eq!(
            names(r#"form-data; name="file"; filename="d/x y.txt""#),
            some("file", "d/x y.txt")
        );
        assert_eq!(
            names(r#"form-data; filename="a\"b;c=d%20é"; name=file"#),
            some("file", "a\"b;c=d%20é")
        );
        assert_eq!(
            names(r#"form-data; name="file""#),
            (Some("file".into()), None)
        );
        assert_eq!(names("form-data"), (None, None));
    }

    #[test]
    fn download_names() {
        assert_eq!(inline("a.txt"), "inline; filename=a.txt");
        assert_eq!(inline("a b.txt"), "inline; filename=\"a b.txt\"");
        assert_eq!(inline("a\"b"), "inline; filename=\"a\\\"b\"");
        assert_eq!(inline("é.txt"), "inline; filename*=utf-8''%C3%A9.txt");
        assert_eq!(inline("a\nb"), "inline; filename=\"ab\"");
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(value in ".{0,80}") {
            let _ = parse(&value);
            let text = inline(&value);
            prop_assert!(http::HeaderValue::from_str(&text).is_ok());
        }

        #[test]
        fn quoted_names_round_trip(name in "[ -~]{1,30}") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let found = parse(&format!("form-data; name=\"file\"; filename=\"{quoted}\""));
            prop_assert_eq!(found.filename, Some(name));
        }
    }
}
