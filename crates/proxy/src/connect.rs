//! Framing of streaming RPC responses: just enough to end one with an error.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::json;
use warren_types::SandboxId;

/// Content types of the streaming protocol begin so.
const STREAMING: &[u8] = b"application/connect+";
/// A flag byte and the payload's length in big-endian bytes.
const PREFIX_LEN: usize = 5;
const END_STREAM_FLAG: u8 = 0b10;

/// Follows the envelopes of a response that passes by, so that it is known whether
/// another one may be appended.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeTracker {
    prefix: [u8; PREFIX_LEN],
    prefix_len: usize,
    payload_left: u64,
    ended: bool,
}

impl EnvelopeTracker {
    /// A tracker, if the response is a stream of envelopes of unknown length.
    pub(crate) fn for_response(headers: &HeaderMap) -> Option<Self> {
        let streaming = headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(STREAMING));
        (streaming && !headers.contains_key(CONTENT_LENGTH)).then(Self::default)
    }

    /// Takes note of bytes that were passed on.
    pub(crate) fn advance(&mut self, mut data: &[u8]) {
        while let Some((&byte, rest)) = data.split_first() {
            if self.payload_left > 0 {
                let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let (passed, after) = data.split_at(left.min(data.len()));
                self.payload_left -= passed.len() as u64;
                data = after;
                continue;
            }
            self.prefix[self.prefix_len] = byte;
            self.prefix_len += 1;
            data = rest;
            if self.prefix_len == PREFIX_LEN {
                let [flags, length @ ..] = self.prefix;
                self.payload_left = u32::from_be_bytes(length).into();
                self.ended |= flags & END_STREAM_FLAG != 0;
                self.prefix_len = 0;
            }
        }
    }

    /// Whether an end-stream envelope would be read as one here.
    pub(crate) fn at_boundary(&self) -> bool {
        self.prefix_len == 0 && self.payload_left == 0 && !self.ended
    }
}

/// The envelope that tells a client that its sandbox went away under the stream.
pub(crate) fn sandbox_ended(id: &SandboxId) -> Bytes {
    let message = format!("the connection to sandbox {id} ended before the stream completed");
    let payload = json!({"error": {"code": "unavailable", "message": message}}).to_string();
    let length = u32::try_from(payload.len()).expect("a short text");
    let mut envelope = BytesMut::with_capacity(PREFIX_LEN + payload.len());
    envelope.put_u8(END_STREAM_FLAG);
    envelope.put_u32(length);
    envelope.put_slice(payload.as_bytes());
    envelope.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![flags];
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_synthesised_envelope_is_well_formed() {
        let bytes = sandbox_ended(&"iabc".parse().unwrap());
        assert_eq!(bytes[0], 2);
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!(length as usize, bytes.len() - 5);
        assert_eq!(
            &bytes[5..],
            br#"{"error":{"code":"unavailable","message":"the connection to sandbox iabc ended before the stream completed"}}"#
        );
    }

    #[test]
    fn only_streams_of_unknown_length_are_followed() {
        let tracker = |pairs: &[(&'static str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            EnvelopeTracker::for_response(&headers.collect()).is_some()
        };
        assert!(tracker(&[("content-type", "application/connect+json")]));
        assert!(!tracker(&[("content-type", "application/json")]));
        assert!(!tracker(&[
            ("content-type", "application/connect+proto"),
            ("content-length", "5")
        ]));
    }

    #[test]
    fn nothing_may_follow_the_end() {
        let mut tracker = EnvelopeTracker::default();
        tracker.advance(&envelope(2, b"{}"));
        assert!(!tracker.at_boundary());
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..5),
            cut in 1..7_usize,
        ) {
            let mut boundaries = vec![0];
            let mut bytes = Vec::new();
            for payload in &payloads {
                bytes.extend(envelope(0, payload));
                boundaries.push(bytes.len());
            }
            let mut tracker = EnvelopeTracker::default();
            let mut passed = 0;
            for chunk in bytes.chunks(cut) {
                tracker.advance(chunk);
                passed += chunk.len();
                prop_assert_eq!(tracker.at_boundary(), boundaries.contains(&passed));
            }
        }
    }
}
