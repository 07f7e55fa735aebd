//! The Connect-RPC protocol for the agent: codecs, envelopes, errors and headers of both
//! ends, and the agent's messages.
//!
//! Everything here is pure: bytes in, bytes out. Sockets, HTTP and policy belong to the
//! callers. Unary calls and streams are supported with the JSON and the binary codec,
//! without compression.

mod check;
mod client;
mod codec;
mod content_type;
mod envelope;
mod error;
mod timeout;
mod timestamp;

pub use check::check_frames_input;
pub use client::{StreamDecoder, StreamItem, decode_unary, stream_request, unary_error};
pub use codec::{Codec, Message};
pub use content_type::{ContentType, Kind};
pub use envelope::{
    Envelope, EnvelopeDecoder, EnvelopeError, FLAG_COMPRESSED, FLAG_END_STREAM, HEADER_LEN,
    encode_end, encode_message,
};
pub use error::{Code, Error};
pub use timeout::{format_timeout, parse_timeout};
pub use timestamp::{CivilTime, Timestamp};

/// Name of the header with the limit of a call in milliseconds.
pub const TIMEOUT_HEADER: &str = "connect-timeout-ms";
/// Name of the header with the protocol version; its value is `1`.
pub const VERSION_HEADER: &str = "connect-protocol-version";

/// Messages of the service `process.Process`.
#[expect(
    clippy::allow_attributes_without_reason,
    reason = "generated from spec/envd/process.proto"
)]
pub mod process {
    include!(concat!(env!("OUT_DIR"), "/process.rs"));
    include!(concat!(env!("OUT_DIR"), "/process.serde.rs"));
}

/// Messages of the service `filesystem.Filesystem`.
#[expect(
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated from spec/envd/filesystem.proto"
)]
pub mod filesystem {
    include!(concat!(env!("OUT_DIR"), "/filesystem.rs"));
    include!(concat!(env!("OUT_DIR"), "/filesystem.serde.rs"));
}
