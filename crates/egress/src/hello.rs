//! The first message of a TLS client: the name it asks for. Reads what any client may send,
//! also cut into many records and segments. Pure.

use warren_types::egress::normalize_name;

/// Largest first message; those of real clients have some kilobytes.
pub(crate) const LIMIT: usize = 64 * 1024;

const RECORD_HEADER: usize = 5;
const RECORD_LIMIT: usize = (1 << 14) + 256;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// The encrypted client hello, and the draft before it.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// What the first bytes of a connection are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a client's first message.
    Partial,
    /// Something else.
    NotTls,
    /// TLS that breaks its own rules.
    Malformed,
    /// A whole first message.
    Whole {
        /// The normalised name that it asks for, if it is one.
        name: Option<String>,
        /// Whether it holds another name that only the server can read.
        is_encrypted: bool,
    },
}

/// Reads the first bytes of a connection.
pub(crate) fn read(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(message) => match client_hello(&message) {
            Some((name, is_encrypted)) => Hello::Whole { name, is_encrypted },
            None => Hello::Malformed,
        },
        Err(hello) => hello,
    }
}

/// Joins the records that the first message is spread over.
fn message(mut bytes: &[u8]) -> Result<Vec<u8>, Hello> {
    match bytes {
        [] => return Err(Hello::Partial),
        [HANDSHAKE] | [HANDSHAKE, 3, ..] => {}
        _ => return Err(Hello::NotTls),
    }
    let mut message = Vec::new();
    loop {
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else {
            return Err(Hello::Partial);
        };
        let [kind, major, _, high, low] = *header else {
            return Err(Hello::Partial);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if (kind, major) != (HANDSHAKE, 3) || length == 0 || length > RECORD_LIMIT {
            return Err(Hello::Malformed);
        }
        message.extend_from_slice(rest.get(..length).unwrap_or(rest));
        if let [kind, a, b, c, body @ ..] = message.as_slice() {
            let whole = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO || whole > LIMIT {
                return Err(Hello::Malformed);
            }
            if let Some(body) = body.get(..whole) {
                return Ok(body.to_vec());
            }
        } else if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Hello::Malformed);
        }
        let Some(next) = rest.get(length..) else {
            return Err(Hello::Partial);
        };
        bytes = next;
    }
}

/// Reads through bytes; `None` is an end too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

fn client_hello(body: &[u8]) -> Option<(Option<String>, bool)> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.short()?;
    reader.long()?;
    reader.short()?;
    if reader.0.is_empty() {
        return Some((None, false));
    }
    let mut extensions = Reader(reader.long()?);
    if !reader.0.is_empty() {
        return None;
    }
    let (mut name, mut is_encrypted) = (None, false);
    let mut has_name = false;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.long()?;
        if kind == SERVER_NAME {
            // Two of them could be read one way here and another way by the server.
            if std::mem::replace(&mut has_name, true) {
                return None;
            }
            name = server_name(content)?;
        }
        is_encrypted |= ENCRYPTED.contains(&kind);
    }
    Some((name, is_encrypted))
}

/// The name of a server-name extension: exactly one, or it is refused.
fn server_name(content: &[u8]) -> Option<Option<String>> {
    let mut content = Reader(content);
    let mut list = Reader(content.long()?);
    let kind = list.u8()?;
    let text = list.long()?;
    if !content.0.is_empty() || !list.0.is_empty() || kind != HOST_NAME {
        return None;
    }
    Some(std::str::from_utf8(text).ok().and_then(normalize_name))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(width: usize, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&length[4 - width..], body].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length(2, content)].concat()
    }

    fn sni(name: &str) -> Vec<u8> {
        let entry = [&[HOST_NAME][..], &with_length(2, name.as_bytes())].concat();
        extension(SERVER_NAME, &with_length(2, &entry))
    }

    fn handshake(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend(with_length(1, &[9; 32]));
        body.extend(with_length(2, &[0x13, 1, 0x13, 2]));
        body.extend(with_length(1, &[0]));
        body.extend(with_length(2, &extensions.concat()));
        [&[CLIENT_HELLO][..], &with_length(3, &body)].concat()
    }

    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|chunk| [&[HANDSHAKE, 3, 1][..], &with_length(2, chunk)].concat())
            .collect()
    }

    /// A client's first message for a name.
    pub(crate) fn hello_for(name: &str) -> Vec<u8> {
        records(
            &handshake(&[extension(10, &[0, 2, 0, 29]), sni(name)]),
            1 << 14,
        )
    }

    fn named(name: &str) -> Hello {
        Hello::Whole {
            name: Some(name.to_owned()),
            is_encrypted: false,
        }
    }

    #[test]
    fn a_name_is_found_however_it_is_cut() {
        let message = handshake(&[extension(10, &[0, 2, 0, 29]), sni("Example.COM")]);
        for size in [1, 2, 3, 5, 7, 100, 1 << 14] {
            let bytes = records(&message, size);
            assert_eq!(read(&bytes), named("example.com"), "{size}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Hello::Partial, "{size} {cut}");
            }
            assert_eq!(
                read(&[&bytes[..], b"early data"].concat()),
                named("example.com")
            );
        }
    }

    #[test]
    fn what_is_ambiguous_is_malformed() {
        let twice = handshake(&[sni("a.b"), sni("c.d")]);
        let entry = [&[HOST_NAME][..], &with_length(2, b"a.b")].concat();
        let list = with_length(2, &[entry.clone(), entry].concat());
        let two = handshake(&[extension(SERVER_NAME, &list)]);
        let odd = handshake(&[extension(SERVER_NAME, &with_length(2, &[1, 0, 1, b'x']))]);
        let mut trailing = handshake(&[sni("a.b")]);
        trailing.push(0);
        trailing[3] += 1;
        for message in [twice, two, odd, trailing] {
            assert_eq!(read(&records(&message, 1 << 14)), Hello::Malformed);
        }
        let message = handshake(&[sni("a.b")]);
        let mut mixed = records(&message[..10], 10);
        mixed.extend([23, 3, 3, 0, 1, 0]);
        assert_eq!(read(&mixed), Hello::Malformed);
        assert_eq!(read(&[HANDSHAKE, 3, 1, 0, 0]), Hello::Malformed);
        assert_eq!(read(&[HANDSHAKE, 3, 1, 0xff, 0xff]), Hello::Malformed);
        assert_eq!(
            read(&[HANDSHAKE, 3, 1, 0, 4, 1, 0xff, 0, 0]),
            Hello::Malformed
        );
        assert_eq!(read(&[HANDSHAKE, 3, 1, 0, 1, 2]), Hello::Malformed);
    }

    #[test]
    fn no_name_an_address_and_other_protocols_give_no_name() {
        let none = Hello::Whole {
            name: None,
            is_encrypted: false,
        };
        for extensions in [vec![], vec![sni("1.2.3.4")], vec![sni("a b")]] {
            assert_eq!(read(&records(&handshake(&extensions), 100)), none);
        }
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"SSH-2.0",
            &[0x80, 0x2e, 1],
            &[22, 4],
        ] {
            assert_eq!(read(bytes), Hello::NotTls);
        }
        assert_eq!(read(&[HANDSHAKE]), Hello::Partial);
    }

    #[test]
    fn an_encrypted_hello_is_told_apart() {
        for kind in ENCRYPTED {
            let message = handshake(&[sni("a.b"), extension(kind, &[0; 40])]);
            let expected = Hello::Whole {
                name: Some("a.b".to_owned()),
                is_encrypted: true,
            };
            assert_eq!(read(&records(&message, 60)), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
            if bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[HANDSHAKE, 3]);
                read(&bytes);
            }
        }

        #[test]
        fn no_flipped_byte_breaks_it(at in 0usize..120, to in any::<u8>()) {
            let mut bytes = hello_for("a.example.org");
            let at = at % bytes.len();
            bytes[at] = to;
            read(&bytes);
        }

        #[test]
        fn any_name_in_any_cut_is_found(
            name in "[a-z][a-z0-9]{0,20}(\\.[a-z][a-z0-9-]{0,10}[a-z]){1,4}",
            size in 1usize..200,
        ) {
            let bytes = records(&handshake(&[sni(&name)]), size);
            prop_assert_eq!(read(&bytes), named(&name));
        }
    }
}
