//! Frames of a stream: one flag byte, a big-endian length, a payload.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::end_payload;
use crate::{Code, Codec, Error, Message};

/// The payload is compressed.
pub const FLAG_COMPRESSED: u8 = 0b01;
/// The payload ends the stream.
pub const FLAG_END_STREAM: u8 = 0b10;
/// Bytes before each payload.
pub const HEADER_LEN: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Flag bits.
    pub flags: u8,
    /// Content.
    pub payload: Bytes,
}

/// Why bytes are not frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A length beyond what the decoder accepts.
    #[error("message size {size} is larger than configured max {limit}")]
    TooLarge {
        /// Announced bytes.
        size: usize,
        /// Accepted bytes.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("protocol error: incomplete envelope: unexpected EOF")]
    Incomplete,
}

impl From<EnvelopeError> for Error {
    fn from(error: EnvelopeError) -> Self {
        let code = match error {
            EnvelopeError::TooLarge { .. } => Code::ResourceExhausted,
            EnvelopeError::Incomplete => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct EnvelopeDecoder {
    buffer: BytesMut,
    limit: usize,
}

impl EnvelopeDecoder {
    /// Makes a decoder that refuses payloads over `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
        }
    }

    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes the next complete frame; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// A frame that announces more than the limit.
    pub fn next_envelope(&mut self) -> Result<Option<Envelope>, EnvelopeError> {
        let [flags, a, b, c, d, ..] = *self.buffer else {
            return Ok(None);
        };
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if size > self.limit {
            return Err(EnvelopeError::TooLarge {
                size,
                limit: self.limit,
            });
        }
        if self.buffer.len() - HEADER_LEN < size {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        Ok(Some(Envelope {
            flags,
            payload: self.buffer.split_to(size).freeze(),
        }))
    }

    /// Checks that the stream did not end inside a frame.
    ///
    /// # Errors
    /// Bytes of an incomplete frame are left.
    pub fn finish(&self) -> Result<(), EnvelopeError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(EnvelopeError::Incomplete)
        }
    }
}

/// Writes one message as a frame.
///
/// # Errors
/// As [`Codec::encode_into`]; `resource_exhausted` over 4 GiB.
pub fn encode_message<M: Message>(codec: Codec, message: &M) -> Result<Bytes, Error> {
    let mut out = vec![0; HEADER_LEN];
    codec.encode_into(message, &mut out)?;
    seal(0, out)
}

/// Writes the frame that ends a stream. Its payload is JSON whatever the codec.
#[must_use]
pub fn encode_end(result: Result<(), &Error>) -> Bytes {
    let mut out = vec![0; HEADER_LEN];
    out.extend_from_slice(&end_payload(result));
    seal(FLAG_END_STREAM, out).unwrap_or_default()
}

fn seal(flags: u8, mut out: Vec<u8>) -> Result<Bytes, Error> {
    let size = u32::try_from(out.len() - HEADER_LEN)
        .map_err(|_| Error::new(Code::ResourceExhausted, "message over 4 GiB"))?;
    out[0] = flags;
    out[1..HEADER_LEN].copy_from_slice(&size.to_be_bytes());
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn end_of_stream_is_flag_two_and_an_object() {
        assert_eq!(&encode_end(Ok(()))[..], b"\x02\0\0\0\x02{}");
    }

    #[test]
    fn a_huge_length_is_refused_before_it_is_buffered() {
        let mut decoder = EnvelopeDecoder::new(16);
        decoder.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(
            decoder.next_envelope(),
            Err(EnvelopeError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn frames_survive_any_fragmentation(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6),
            step in 1_usize..9,
        ) {
            let mut wire = Vec::new();
            for (flags, payload) in &frames {
                let mut out = vec![0; HEADER_LEN];
                out.extend_from_slice(payload);
                wire.extend_from_slice(&seal(*flags, out).unwrap());
            }
            let mut decoder = EnvelopeDecoder::new(64);
            let mut got = Vec::new();
            for piece in wire.chunks(step) {
                decoder.push(piece);
                while let Some(envelope) = decoder.next_envelope().unwrap() {
                    got.push((envelope.flags, envelope.payload.to_vec()));
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = EnvelopeDecoder::new(1 << 20);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_envelope() {}
        }
    }
}
