//! Encoding of netlink messages. Pure.

/// A message under construction: header, fixed part, nested attributes.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    start: usize,
    nests: Vec<usize>,
}

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_EXCL`.
pub const EXCLUSIVE: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;

const NESTED: u16 = 0x8000;
const HEADER: usize = 16;

impl Message {
    /// Starts a message of a type with flags besides `NLM_F_REQUEST`.
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut message = Self {
            bytes: Vec::with_capacity(256),
            start: 0,
            nests: Vec::new(),
        };
        message.header(kind, flags);
        message
    }

    /// Ends the current message and starts another one in the same packet.
    #[must_use]
    pub fn and(mut self, kind: u16, flags: u16) -> Self {
        self.close();
        self.start = self.bytes.len();
        self.header(kind, flags);
        self
    }

    fn header(&mut self, kind: u16, flags: u16) {
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
    }

    /// Appends the fixed part or padding as it is.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self.pad();
        self
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// Appends a text attribute with its final zero.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Opens an attribute that holds others.
    #[must_use]
    pub fn nest(mut self, kind: u16) -> Self {
        self.nests.push(self.bytes.len());
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        self
    }

    /// Closes the attribute opened last.
    #[must_use]
    pub fn end(mut self) -> Self {
        self.end_nest();
        self
    }

    fn end_nest(&mut self) -> bool {
        let Some(at) = self.nests.pop() else {
            return false;
        };
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        true
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn close(&mut self) {
        while self.end_nest() {}
        let length = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// The packet; `sequence` goes into every message of it that asks for an answer.
    #[must_use]
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        self.close();
        let mut at = 0;
        while at + HEADER <= self.bytes.len() {
            self.bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
            let length: [u8; 4] = [
                self.bytes[at],
                self.bytes[at + 1],
                self.bytes[at + 2],
                self.bytes[at + 3],
            ];
            at += u32::from_ne_bytes(length) as usize;
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_messages_and_nests_are_filled_in() {
        let bytes = Message::new(16, ACK)
            .raw(&[1, 2, 3, 4])
            .nest(18)
            .text(1, "ab")
            .end()
            .and(17, 0)
            .raw(&[9])
            .finish(7);
        assert_eq!(bytes[..4], 32u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        assert_eq!(bytes[20..22], 12u16.to_ne_bytes());
        assert_eq!(bytes[22..24], (18u16 | NESTED).to_ne_bytes());
        assert_eq!(&bytes[28..32], b"ab\0\0");
        assert_eq!(bytes[32..36], 20u32.to_ne_bytes());
        assert_eq!(bytes[40..44], 7u32.to_ne_bytes());
        assert_eq!(bytes.len(), 52);
    }
}
