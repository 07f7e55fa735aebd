//! The two ways to write a message.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Code, Error};

/// A message that both codecs can write and read.
pub trait Message: prost::Message + Default + Serialize + DeserializeOwned {}

impl<M: prost::Message + Default + Serialize + DeserializeOwned> Message for M {}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Proto3 JSON.
    Json,
    /// Binary protobuf.
    Proto,
}

impl Codec {
    /// Appends `message` to `out`.
    ///
    /// # Errors
    /// `internal` when a value has no JSON form, such as a time before year 1.
    pub fn encode_into<M: Message>(self, message: &M, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Json => serde_json::to_writer(out, message)
                .map_err(|e| Error::new(Code::Internal, format!("marshal message: {e}"))),
            Self::Proto => message
                .encode(out)
                .map_err(|e| Error::new(Code::Internal, format!("marshal message: {e}"))),
        }
    }

    /// Writes `message`.
    ///
    /// # Errors
    /// As [`Codec::encode_into`].
    pub fn encode<M: Message>(self, message: &M) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        self.encode_into(message, &mut out)?;
        Ok(out)
    }

    /// Reads a message. Unknown fields are ignored; an empty JSON body is an empty message.
    ///
    /// # Errors
    /// `invalid_argument` when `bytes` are not such a message.
    pub fn decode<M: Message>(self, bytes: &[u8]) -> Result<M, Error> {
        let invalid = |cause: &dyn std::fmt::Display| {
            Error::new(Code::InvalidArgument, format!("unmarshal message: {cause}"))
        };
        match self {
            Self::Json if bytes.is_empty() => Ok(M::default()),
            Self::Json => serde_json::from_slice(bytes).map_err(|e| invalid(&e)),
            Self::Proto => M::decode(bytes).map_err(|e| invalid(&e)),
        }
    }
}

#[cfg(test)]
mod tests;
