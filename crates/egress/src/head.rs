//! The head of an HTTP/1 request: the host that it names. Pure.

use warren_types::egress::normalize_name;

/// Largest head; more is refused.
pub(crate) const LIMIT: usize = 64 * 1024;
const HEADERS: usize = 128;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Head {
    /// The beginning of a head.
    Partial,
    /// Something else.
    NotHttp,
    /// A whole head, with the normalised name of the one host that it names.
    Whole(Option<String>),
}

/// Reads the first bytes of a connection.
pub(crate) fn read(bytes: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_) => Head::NotHttp,
        Ok(httparse::Status::Complete(_)) => {
            let mut hosts = request
                .headers
                .iter()
                .filter(|header| header.name.eq_ignore_ascii_case("host"));
            let (first, second) = (hosts.next(), hosts.next());
            let (Some(host), None) = (first, second) else {
                return Head::Whole(None);
            };
            let host = std::str::from_utf8(host.value).ok();
            Head::Whole(host.and_then(host_name))
        }
    }
}

/// The normalised name in an authority; none in one that has an address or a bad port.
pub(crate) fn host_name(authority: &str) -> Option<String> {
    let authority = authority.trim();
    let (name, port) = match authority.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    normalize_name(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_host_is_read_and_what_is_ambiguous_is_none() {
        let whole = |host: Option<&str>| Head::Whole(host.map(str::to_owned));
        for (text, expected) in [
            (
                "GET / HTTP/1.1\r\nHost: Ex.Org\r\n\r\n",
                whole(Some("ex.org")),
            ),
            (
                "GET / HTTP/1.1\r\nhost:ex.org:80\r\n\r\n",
                whole(Some("ex.org")),
            ),
            (
                "GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d\r\n\r\n",
                whole(None),
            ),
            ("GET / HTTP/1.1\r\nHost: 1.2.3.4\r\n\r\n", whole(None)),
            ("GET / HTTP/1.1\r\nHost: a.b:x\r\n\r\n", whole(None)),
            ("GET / HTTP/1.0\r\n\r\n", whole(None)),
            ("GET / HTTP/1.1\r\nHost: ex", Head::Partial),
            ("", Head::Partial),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Head::NotHttp),
            ("\x16\x03\x01", Head::NotHttp),
            ("SSH-2.0-x\r\n", Head::NotHttp),
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
            read(&[b"GET / HTTP/1.1\r\nHost: ", &bytes[..], b"\r\n\r\n"].concat());
        }

        #[test]
        fn a_host_is_found_among_others(
            name in "[a-z]{1,9}(\\.[a-z]{1,9}){1,3}",
            before in proptest::collection::vec("[a-z]{1,8}: [ -~]{0,20}", 0..5),
        ) {
            prop_assume!(before.iter().all(|line| !line.starts_with("host:")));
            let text = format!("GET / HTTP/1.1\r\n{}\r\nHost: {name}\r\n\r\n",
                before.join("\r\n"));
            let text = text.replace("HTTP/1.1\r\n\r\nHost", "HTTP/1.1\r\nHost");
            prop_assert_eq!(read(text.as_bytes()), Head::Whole(Some(name)));
        }
    }
}
