//! Languages: their names, and code that changes variables of the environment.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Variables by name.
pub(crate) type Vars = BTreeMap<String, String>;

/// Variables to set, and with `None` to remove.
pub type Changes = BTreeMap<String, Option<String>>;

/// The name of a language as contexts tell it: TypeScript runs as JavaScript.
#[must_use]
pub fn normalize(name: &str) -> String {
    let name = name.trim().to_lowercase();
    match name.as_str() {
        "js" | "ts" | "typescript" => "javascript".to_owned(),
        _ => name,
    }
}

/// What turns one set of variables into another.
pub(crate) fn difference(from: &Vars, to: &Vars) -> Changes {
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let set = to
        .iter()
        .filter(|(name, value)| from.get(*name) != Some(value));
    gone.map(|name| (name.clone(), None))
        .chain(set.map(|(name, value)| (name.clone(), Some(value.clone()))))
        .collect()
}

/// Whether a variable can exist.
#[must_use]
pub fn is_valid(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}

/// Whether variables can be set in a language.
#[must_use]
pub fn takes_variables(language: &str) -> bool {
    apply(language, &Changes::from([("A".to_owned(), None)])).is_some()
}

/// Code that applies changes, or `None` if the language has no way that is known here.
/// Whatever names and values hold, they stay data: every other character is escaped.
#[must_use]
pub fn apply(language: &str, changes: &Changes) -> Option<String> {
    let mut code = String::new();
    for (name, value) in changes {
        let value = value.as_deref();
        match language {
            "python" => python(&mut code, name, value),
            "javascript" => javascript(&mut code, name, value),
            "r" => r(&mut code, name, value),
            "bash" => bash(&mut code, name, value),
            "java" => java(&mut code, name, value),
            _ => return None,
        }
    }
    Some(code)
}

/// Python's own generators, and the names that temporary files get, which come from one.
const PYTHON_SEED: &str = "\
__import__('random').seed()
(lambda loaded: (
    'numpy.random' in loaded and loaded['numpy.random'].seed(),
    'tempfile' in loaded and setattr(loaded['tempfile'], '_name_sequence', None),
))(__import__('sys').modules)
";

/// OpenSSL's generator, which makes the keys of connections. What is added is mixed in.
const PYTHON_STIR: &str = "\
(lambda loaded: 'ssl' in loaded and loaded['ssl'].RAND_add(__import__('os').urandom(48), 48.0))(
    __import__('sys').modules)
";

/// Code that seeds the generators of random numbers that programs use as they like, where a
/// language has such: a kernel may be a copy of one that was captured in memory, as others
/// are. It undoes what a program has seeded.
#[must_use]
pub fn seed(language: &str) -> &'static str {
    match language {
        "python" => PYTHON_SEED,
        "r" => "set.seed(NULL)\n",
        _ => "",
    }
}

/// Code that makes generators of secrets differ from those of a kernel's copies, where they
/// don't ask the operating system each time. No program can tell that it ran.
#[must_use]
pub fn stir(language: &str) -> &'static str {
    match language {
        "python" => PYTHON_STIR,
        _ => "",
    }
}

fn python(code: &mut String, name: &str, value: Option<&str>) {
    let environ = "__import__('os').environ";
    let name = quoted(name, python_escape);
    match value {
        Some(value) => {
            let value = quoted(value, python_escape);
            let _ = writeln!(code, "{environ}[{name}] = {value}");
        }
        None => {
            let _ = writeln!(code, "{environ}.pop({name}, None)");
        }
    }
}

fn javascript(code: &mut String, name: &str, value: Option<&str>) {
    let name = quoted(name, utf16_escape);
    match value {
        Some(value) => {
            let value = quoted(value, utf16_escape);
            let _ = writeln!(code, "globalThis.process.env[{name}] = {value};");
        }
        None => {
            let _ = writeln!(code, "delete globalThis.process.env[{name}];");
        }
    }
}

fn r(code: &mut String, name: &str, value: Option<&str>) {
    let name = quoted(name, python_escape);
    match value {
        Some(value) => {
            let value = quoted(value, python_escape);
            let _ = writeln!(code, "invisible(Sys.setenv({name} = {value}))");
        }
        None => {
            let _ = writeln!(code, "invisible(Sys.unsetenv({name}))");
        }
    }
}

/// Names that are no identifiers can't be variables of a shell and are left out.
fn bash(code: &mut String, name: &str, value: Option<&str>) {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_identifier =
        name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit());
    if !is_identifier {
        return;
    }
    match value {
        Some(value) => {
            let _ = write!(code, "export {name}=$'");
            for byte in value.bytes() {
                if is_plain(char::from(byte)) {
                    code.push(char::from(byte));
                } else {
                    let _ = write!(code, "\\x{byte:02x}");
                }
            }
            code.push_str("'\n");
        }
        None => {
            let _ = writeln!(code, "unset {name}");
        }
    }
}

fn java(code: &mut String, name: &str, value: Option<&str>) {
    let name = quoted(name, java_escape);
    match value {
        Some(value) => {
            let value = quoted(value, java_escape);
            let _ = writeln!(code, "System.setProperty({name}, {value});");
        }
        None => {
            let _ = writeln!(code, "System.clearProperty({name});");
        }
    }
}

/// Characters that mean only themselves in every literal here.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/' | ':' | ',' | '=' | '+')
}

fn quoted(text: &str, escape: fn(&mut String, char)) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for c in text.chars() {
        if is_plain(c) {
            literal.push(c);
        } else {
            escape(&mut literal, c);
        }
    }
    literal.push('"');
    literal
}

/// For Python and R, which both count code points.
fn python_escape(literal: &mut String, c: char) {
    let _ = write!(literal, "\\U{:08x}", u32::from(c));
}

fn utf16_escape(literal: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(literal, "\\u{unit:04x}");
    }
}

/// Java replaces `\u` escapes before it reads literals, so they can't stand for quotes or
/// line ends there.
fn java_escape(literal: &mut String, c: char) {
    if c.is_ascii() {
        let _ = write!(literal, "\\{:03o}", u32::from(c));
    } else {
        utf16_escape(literal, c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(value: Option<&str>) -> Changes {
        Changes::from([("A".to_owned(), value.map(str::to_owned))])
    }

    #[test]
    fn names_are_normalized() {
        for (name, expected) in [
            (" Python ", "python"),
            ("js", "javascript"),
            ("TS", "javascript"),
            ("ir", "ir"),
        ] {
            assert_eq!(normalize(name), expected);
        }
    }

    #[test]
    fn code_sets_and_removes() {
        let code = |language, value| apply(language, &change(value)).unwrap();
        assert_eq!(
            code("python", Some("1")),
            "__import__('os').environ[\"A\"] = \"1\"\n"
        );
        assert_eq!(
            code("python", None),
            "__import__('os').environ.pop(\"A\", None)\n"
        );
        assert_eq!(
            code("javascript", Some("😀")),
            "globalThis.process.env[\"A\"] = \"\\ud83d\\ude00\";\n"
        );
        assert_eq!(
            code("javascript", None),
            "delete globalThis.process.env[\"A\"];\n"
        );
        assert_eq!(
            code("r", Some("\n")),
            "invisible(Sys.setenv(\"A\" = \"\\U0000000a\"))\n"
        );
        assert_eq!(code("r", None), "invisible(Sys.unsetenv(\"A\"))\n");
        assert_eq!(
            code("bash", Some("a'é$")),
            "export A=$'a\\x27\\xc3\\xa9\\x24'\n"
        );
        assert_eq!(code("bash", None), "unset A\n");
        assert_eq!(
            code("java", Some("\"é")),
            "System.setProperty(\"A\", \"\\042\\u00e9\");\n"
        );
        assert_eq!(code("java", None), "System.clearProperty(\"A\");\n");
        assert_eq!(apply("cobol", &change(None)), None);
    }

    #[test]
    fn only_what_differs_is_changed() {
        let vars = |pairs: &[(&str, &str)]| -> Vars {
            let pairs = pairs.iter().copied();
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let (from, to) = (
            vars(&[("A", "1"), ("B", "2"), ("C", "3")]),
            vars(&[("A", "1"), ("B", "x")]),
        );
        let expected = [("B", Some("x")), ("C", None)];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.map(str::to_owned)));
        assert_eq!(difference(&from, &to), Changes::from(expected));
        assert_eq!(difference(&to, &to), Changes::new());
    }

    #[test]
    fn a_shell_gets_no_names_that_are_code() {
        let changes = Changes::from([("A;rm".to_owned(), Some("1".to_owned()))]);
        assert_eq!(apply("bash", &changes).unwrap(), "");
    }

    proptest! {
        #[test]
        fn nothing_escapes_from_a_literal(value in any::<String>(), name in any::<String>()) {
            for language in ["python", "javascript", "r", "bash", "java"] {
                let changes = Changes::from([(name.clone(), Some(value.clone()))]);
                let code = apply(language, &changes).unwrap();
                prop_assert!(code.is_ascii());
                let lines = code.lines().count();
                prop_assert!(lines <= 1);
                prop_assert!(!code.trim_end_matches('\n').contains(|c: char| c.is_ascii_control()));
                // Two literals, or one in a shell, and no quote besides theirs.
                let quotes = code.matches('"').count();
                prop_assert_eq!(quotes, if language == "bash" { 0 } else { 4 });
            }
        }

        #[test]
        fn javascript_literals_are_json(value in any::<String>()) {
            let literal = quoted(&value, utf16_escape);
            prop_assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), value);
        }
    }
}
