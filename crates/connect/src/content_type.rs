//! Media types of the protocol.

use crate::Codec;

/// Whether a call is one message each way or streams of envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One message each way, as the whole body.
    Unary,
    /// Envelopes.
    Stream,
}

/// A media type of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentType {
    /// Shape of the bodies.
    pub kind: Kind,
    /// How messages are written.
    pub codec: Codec,
}

impl ContentType {
    /// Reads a `Content-Type` value; parameters are ignored.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        let (kind, codec) = if is("application/json") {
            (Kind::Unary, Codec::Json)
        } else if is("application/proto") {
            (Kind::Unary, Codec::Proto)
        } else if is("application/connect+json") {
            (Kind::Stream, Codec::Json)
        } else if is("application/connect+proto") {
            (Kind::Stream, Codec::Proto)
        } else {
            return None;
        };
        Some(Self { kind, codec })
    }

    /// The value to send.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match (self.kind, self.codec) {
            (Kind::Unary, Codec::Json) => "application/json",
            (Kind::Unary, Codec::Proto) => "application/proto",
            (Kind::Stream, Codec::Json) => "application/connect+json",
            (Kind::Stream, Codec::Proto) => "application/connect+proto",
        }
    }

    /// The value of `Accept-Post` for calls of a kind.
    #[must_use]
    pub const fn accept_post(kind: Kind) -> &'static str {
        match kind {
            Kind::Unary => "application/json, application/proto",
            Kind::Stream => "application/connect+json, application/connect+proto",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_matter() {
        let json = ContentType::parse("Application/JSON; charset=utf-8").unwrap();
        assert_eq!((json.kind, json.codec), (Kind::Unary, Codec::Json));
        let stream = ContentType::parse("application/connect+proto").unwrap();
        assert_eq!(stream.as_str(), "application/connect+proto");
        assert_eq!(ContentType::parse("text/plain"), None);
    }
}
