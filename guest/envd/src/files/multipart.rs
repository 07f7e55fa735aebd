//! A multipart reader that is fed bytes as they arrive and never holds more than one piece
//! and one delimiter.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;

use super::disposition::{self, Disposition};

/// Longest head of a part in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Longest boundary in bytes; the standard says 70.
const MAX_BOUNDARY: usize = 256;

/// What the body contains, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A part begins.
    Part(Disposition),
    /// Content of the part.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
    /// The body is complete; what follows does not matter.
    End,
}

/// Why a body can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The media type names no boundary.
    #[error("no multipart boundary param in Content-Type")]
    NoBoundary,
    /// The head of a part is too long.
    #[error("multipart: message too large")]
    HeadTooLong,
    /// What follows a delimiter is neither a line end nor the end.
    #[error("multipart: expecting a new Part")]
    BadDelimiter,
    /// The body ended before its end.
    #[error("multipart: NextPart: EOF")]
    Truncated,
}

/// Reads the boundary from a `Content-Type`.
///
/// # Errors
/// There is none, or it is too long.
pub fn boundary(content_type: &str) -> Result<String, MultipartError> {
    let mut rest = content_type.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().trim_start_matches(';').trim();
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim_end(), &after[end..])
            }
        };
        if name.eq_ignore_ascii_case("boundary") {
            let fits = !value.is_empty() && value.len() <= MAX_BOUNDARY;
            return fits
                .then(|| value.to_owned())
                .ok_or(MultipartError::NoBoundary);
        }
        rest = after;
    }
    Err(MultipartError::NoBoundary)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first delimiter.
    Preamble,
    /// Behind a delimiter: a line end or `--`.
    Delimiter,
    /// In a part's head.
    Head,
    /// In a part's content.
    Content,
    /// Behind the last delimiter.
    End,
}

/// Reads a body.
#[derive(Debug)]
pub struct Parser {
    buffer: BytesMut,
    state: State,
    /// Line end, two dashes, boundary.
    delimiter: Finder<'static>,
}

impl Parser {
    /// Makes a parser for bodies with this boundary.
    #[must_use]
    pub fn new(boundary: &str) -> Self {
        let delimiter = format!("\r\n--{boundary}");
        let mut buffer = BytesMut::new();
        // So that a delimiter at the very start is found like any other.
        buffer.extend_from_slice(b"\r\n");
        Self {
            buffer,
            state: State::Preamble,
            delimiter: Finder::new(delimiter.as_bytes()).into_owned(),
        }
    }

    /// Adds bytes. Take all items before adding more, else they pile up.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state != State::End {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Takes the next item; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// The body can't be read.
    pub fn next_item(&mut self) -> Result<Option<Item>, MultipartError> {
        loop {
            match self.state {
                State::Preamble => {
                    if !self.skip_preamble() {
                        return Ok(None);
                    }
                }
                State::Delimiter => match self.after_delimiter()? {
                    true => {}
                    false => return Ok(None),
                },
                State::Head => return self.head(),
                State::Content => return Ok(self.content()),
                State::End => return Ok(Some(Item::End)),
            }
        }
    }

    /// Checks that the body was complete.
    ///
    /// # Errors
    /// The last delimiter is missing.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::End => Ok(()),
            _ => Err(MultipartError::Truncated),
        }
    }

    fn skip_preamble(&mut self) -> bool {
        let len = self.delimiter.needle().len();
        match self.delimiter.find(&self.buffer) {
            Some(at) => {
                self.buffer.advance(at + len);
                self.state = State::Delimiter;
                true
            }
            None => {
                let keep = self.buffer.len().min(len - 1);
                self.buffer.advance(self.buffer.len() - keep);
                false
            }
        }
    }

    /// Returns whether the state changed.
    fn after_delimiter(&mut self) -> Result<bool, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            self.state = State::End;
            return Ok(true);
        }
        // White space may follow a boundary.
        let blank = self.buffer.iter().take_while(|b| matches!(b, b' ' | b'\t'));
        let blank = blank.count();
        match &self.buffer[blank..] {
            [b'\r', b'\n', ..] => {
                // The line end stays: a head without lines ends with it.
                self.buffer.advance(blank);
                self.state = State::Head;
                Ok(true)
            }
            [] | [b'\r'] | [b'-'] if blank < MAX_HEAD => Ok(false),
            _ => Err(MultipartError::BadDelimiter),
        }
    }

    fn head(&mut self) -> Result<Option<Item>, MultipartError> {
        match memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
            Some(at) if at <= MAX_HEAD => {
                let head = self.buffer.split_to(at + 4);
                self.state = State::Content;
                // An empty part's delimiter may begin with the head's last line end.
                Ok(Some(Item::Part(parse_head(&head))))
            }
            None if self.buffer.len() <= MAX_HEAD => Ok(None),
            _ => Err(MultipartError::HeadTooLong),
        }
    }

    fn content(&mut self) -> Option<Item> {
        let len = self.delimiter.needle().len();
        match self.delimiter.find(&self.buffer) {
            Some(0) => {
                self.buffer.advance(len);
                self.state = State::Delimiter;
                Some(Item::PartEnd)
            }
            Some(at) => Some(Item::Data(self.buffer.split_to(at).freeze())),
            None => {
                // A delimiter may have begun in the last bytes.
                let sure = self.buffer.len().saturating_sub(len - 1);
                (sure > 0).then(|| Item::Data(self.buffer.split_to(sure).freeze()))
            }
        }
    }
}

fn parse_head(head: &[u8]) -> Disposition {
    let head = String::from_utf8_lossy(head);
    for line in head.split("\r\n") {
        if let Some((name, value)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case("content-disposition")
        {
            return disposition::parse(value);
        }
    }
    Disposition::default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Parts = Vec<(Disposition, Vec<u8>)>;

    fn read(body: &[u8], step: usize) -> Result<Parts, MultipartError> {
        let mut parser = Parser::new("XX");
        let mut parts: Parts = Vec::new();
        for piece in body.chunks(step) {
            parser.push(piece);
            loop {
                match parser.next_item()? {
                    None | Some(Item::End) => break,
                    Some(Item::Part(disposition)) => parts.push((disposition, Vec::new())),
                    Some(Item::Data(data)) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                    Some(Item::PartEnd) => {}
                }
            }
        }
        parser.finish()?;
        Ok(parts)
    }

    fn write(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (filename, content) in parts {
            body.extend_from_slice(b"--XX\r\nContent-Disposition: form-data; name=\"file\"; ");
            body.extend_from_slice(format!("filename=\"{filename}\"\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--XX--\r\n");
        body
    }

    #[test]
    fn boundaries() {
        assert_eq!(
            boundary("multipart/form-data; boundary=abc").unwrap(),
            "abc"
        );
        assert_eq!(
            boundary("multipart/form-data; charset=x; boundary=\"a;b\"").unwrap(),
            "a;b"
        );
        assert_eq!(
            boundary("multipart/form-data"),
            Err(MultipartError::NoBoundary)
        );
    }

    #[test]
    fn an_empty_body_has_no_parts() {
        assert_eq!(read(b"--XX--", 3), Ok(vec![]));
        assert_eq!(read(b"preamble\r\n--XX--\r\nepilogue", 100), Ok(vec![]));
    }

    #[test]
    fn broken_bodies_are_errors() {
        let whole = write(&[("a", b"content")]);
        assert_eq!(
            read(&whole[..whole.len() - 5], 7),
            Err(MultipartError::Truncated)
        );
        assert_eq!(
            read(b"--XXjunk\r\n", 100),
            Err(MultipartError::BadDelimiter)
        );
        let mut long = b"--XX\r\n".to_vec();
        long.resize(MAX_HEAD + 100, b'a');
        assert_eq!(read(&long, 1000), Err(MultipartError::HeadTooLong));
    }

    proptest! {
        #[test]
        fn parts_survive_any_fragmentation(
            contents in prop::collection::vec("[\r\nX-]{0,20}", 0..4),
            step in 1_usize..30,
        ) {
            let clean = contents.iter().all(|c| !format!("\r\n{c}").contains("\r\n--XX"));
            prop_assume!(clean);
            let list: Vec<_> = contents.iter().map(|c| ("d/f", c.as_bytes())).collect();
            let parts = read(&write(&list), step).unwrap();
            let got: Vec<_> = parts.iter().map(|(_, c)| c.clone()).collect();
            let expected: Vec<_> = contents.iter().map(|c| c.as_bytes().to_vec()).collect();
            prop_assert_eq!(got, expected);
            prop_assert!(parts.iter().all(|(d, _)| d.filename.as_deref() == Some("d/f")));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(prop::sample::select(b"\r\n-X: a".to_vec()), 0..300),
            step in 1_usize..40,
        ) {
            let _ = read(&bytes, step);
        }
    }
}
