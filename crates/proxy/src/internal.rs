//! Which agent routes are for the control plane only: the pure reading of a path.

/// Agent routes that are not reachable through the sandbox's URL.
const RESERVED: [&str; 7] = [
    "/init",
    "/freeze",
    "/unfreeze",
    "/collapse",
    "/fsfreeze",
    "/fsthaw",
    "/upgrade",
];

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Undoes percent-encoding once; a malformed escape stays as it is.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
            rest = tail;
        }
    }
    out
}

/// Decodes `path` and resolves `//`, `.`, `..` and a trailing slash. The result starts
/// with `/` and never leaves the root.
#[must_use]
pub fn clean_path(path: &str) -> Vec<u8> {
    let decoded = percent_decode(path);
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut clean = Vec::with_capacity(decoded.len() + 1);
    for segment in segments {
        clean.push(b'/');
        clean.extend_from_slice(segment);
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    clean
}

/// The reserved agent route that `path` (without query) means, if it means one.
#[must_use]
pub fn reserved_route(path: &str) -> Option<&'static str> {
    let clean = clean_path(path);
    RESERVED.into_iter().find(|route| route.as_bytes() == clean)
}

/// Reads hostile bytes as a path and checks what must hold of any clean one. The body of
/// the fuzz target and of the tests over its seeds.
///
/// # Panics
/// When an invariant is broken.
pub fn check_path_input(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let clean = clean_path(path);
    assert_eq!(clean.first(), Some(&b'/'), "a clean path is absolute");
    assert!(clean.len() <= path.len() + 1, "cleaning does not grow");
    assert!(
        clean.len() == 1 || clean.last() != Some(&b'/'),
        "no trailing slash"
    );
    let inner = clean.get(1..).unwrap_or_default();
    assert!(
        inner.is_empty()
            || inner
                .split(|b| *b == b'/')
                .all(|s| !matches!(s, b"" | b"." | b"..")),
        "no segment is left to resolve"
    );
    assert_eq!(
        reserved_route(path).is_some(),
        RESERVED.iter().any(|route| route.as_bytes() == clean),
        "the decision follows from the clean path"
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_reserved_route_is_found() {
        for path in [
            "/init",
            "//init/",
            "/x/../init",
            "/%69nit",
            "/%2e%2e/init",
            "/x%2F..%2finit",
            "/./init/.",
            "/../../init",
            "init",
        ] {
            assert_eq!(reserved_route(path), Some("/init"), "{path}");
        }
        for route in RESERVED {
            assert_eq!(reserved_route(route), Some(route));
        }
    }

    #[test]
    fn other_routes_are_left_alone() {
        for path in [
            "/",
            "",
            "*",
            "/health",
            "/init/x",
            "/initx",
            "/Init",
            "/%2569nit",
            "/%zzinit",
            "/%",
        ] {
            assert_eq!(reserved_route(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_taken(path in "[/.%a-f0-9\\PC]{0,60}") {
            check_path_input(path.as_bytes());
        }

        #[test]
        fn detours_never_hide_a_route(
            route in proptest::sample::select(&RESERVED[..]),
            detours in proptest::collection::vec(
                proptest::sample::select(&["/", "/.", "/a/..", "/..", "/%2e", "/b/%2E%2e"][..]),
                0..6,
            ),
            encoded in 1..5_usize,
        ) {
            let escape = format!("%{:02x}", route.as_bytes()[encoded]);
            let spelled = format!("{}{}{}", &route[..encoded], escape, &route[encoded + 1..]);
            let path = format!("{}{spelled}/", detours.concat());
            prop_assert_eq!(reserved_route(&path), Some(route));
        }
    }
}
