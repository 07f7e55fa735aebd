//! The client's end: answers of unary calls and of streams.

use bytes::Bytes;
use http::StatusCode;

use crate::error::parse_end;
use crate::{
    Code, Codec, EnvelopeDecoder, Error, FLAG_COMPRESSED, FLAG_END_STREAM, Message, encode_message,
};

/// Writes the body of a server-stream request: one message.
///
/// # Errors
/// As [`encode_message`].
pub fn stream_request<M: Message>(codec: Codec, message: &M) -> Result<Bytes, Error> {
    encode_message(codec, message)
}

/// Reads the answer of a unary call.
///
/// # Errors
/// The server's error, or one that stands for an answer that is not of the protocol.
pub fn decode_unary<M: Message>(codec: Codec, status: StatusCode, body: &[u8]) -> Result<M, Error> {
    if status == StatusCode::OK {
        codec.decode(body)
    } else {
        Err(unary_error(status, body))
    }
}

/// Reads the error in an answer other than 200.
#[must_use]
pub fn unary_error(status: StatusCode, body: &[u8]) -> Error {
    #[derive(serde::Deserialize)]
    struct Plain {
        message: String,
    }
    if let Some(error) = Error::from_json(body) {
        return error;
    }
    let message = match serde_json::from_slice::<Plain>(body) {
        Ok(plain) => plain.message,
        Err(_) => status.to_string(),
    };
    Error::new(Code::from_status(status), message)
}

/// What a server stream delivers.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamItem<M> {
    /// A message.
    Message(M),
    /// The stream ended well.
    End,
}

/// Reads the body of a server stream.
#[derive(Debug)]
pub struct StreamDecoder {
    codec: Codec,
    envelopes: EnvelopeDecoder,
}

impl StreamDecoder {
    /// Makes a decoder that refuses messages over `limit` bytes.
    #[must_use]
    pub fn new(codec: Codec, limit: usize) -> Self {
        Self {
            codec,
            envelopes: EnvelopeDecoder::new(limit),
        }
    }

    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        self.envelopes.push(bytes);
    }

    /// Takes the next item; `None` means that more bytes are needed. A connection that ends
    /// before [`StreamItem::End`] was cut.
    ///
    /// # Errors
    /// The error that ended the stream, or one that stands for bytes that are no stream.
    pub fn next_item<M: Message>(&mut self) -> Result<Option<StreamItem<M>>, Error> {
        let Some(envelope) = self.envelopes.next_envelope()? else {
            return Ok(None);
        };
        if envelope.flags & FLAG_COMPRESSED != 0 {
            return Err(Error::new(
                Code::Internal,
                "protocol error: sent compressed message without compression support",
            ));
        }
        if envelope.flags & FLAG_END_STREAM != 0 {
            return parse_end(&envelope.payload).map(|()| Some(StreamItem::End));
        }
        let message = self.codec.decode(&envelope.payload)?;
        Ok(Some(StreamItem::Message(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_end;
    use crate::process::{ListRequest, ListResponse};

    #[test]
    fn a_stream_ends_with_its_error() {
        let mut decoder = StreamDecoder::new(Codec::Json, 1024);
        decoder.push(&encode_message(Codec::Json, &ListResponse::default()).unwrap());
        let error = Error::new(Code::NotFound, "gone");
        decoder.push(&encode_end(Err(&error)));
        let item = decoder.next_item::<ListRequest>().unwrap();
        assert_eq!(item, Some(StreamItem::Message(ListRequest {})));
        assert_eq!(decoder.next_item::<ListRequest>(), Err(error));
    }

    #[test]
    fn a_plain_http_error_becomes_a_code() {
        let error = unary_error(
            StatusCode::UNAUTHORIZED,
            br#"{"code":401,"message":"no token"}"#,
        );
        assert_eq!(error, Error::new(Code::Unauthenticated, "no token"));
        let error = unary_error(StatusCode::BAD_GATEWAY, b"oops");
        assert_eq!(error.code, Code::Unavailable);
    }
}
