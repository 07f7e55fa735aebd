//! Messages of the Jupyter wire protocol, as frames and as values.
//!
//! Only what the server needs is decoded; bodies stay raw until someone asks for them, so a
//! kernel with unusual fields loses none of its messages.

use std::time::SystemTime;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::time;

/// Stands between routing frames and the message.
const DELIMITER: &[u8] = b"<IDS|MSG>";
/// Frames after the delimiter: signature, header, parent, metadata, content.
const PARTS: usize = 5;
/// Protocol version that our requests name.
const VERSION: &str = "5.3";

/// A message that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Frames are missing.
    #[error("a kernel's message lacks frames")]
    Frames,
    /// The signature is not the key's.
    #[error("a kernel's message has a wrong signature")]
    Signature,
    /// A part is not the JSON it should be.
    #[error("a kernel's message can't be decoded")]
    Json(#[source] serde_json::Error),
}

/// What is used of a header.
#[derive(Debug, Clone, Deserialize)]
pub struct Header {
    /// Identifies the message.
    pub msg_id: String,
    /// Says what the content is.
    pub msg_type: String,
    /// When the kernel made it, as ISO 8601.
    #[serde(default)]
    pub date: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Parent {
    #[serde(default)]
    msg_id: Option<String>,
}

/// A message of a kernel.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// The request that it belongs to.
    pub parent: Option<String>,
    content: Bytes,
}

impl Message {
    /// Decodes the content.
    ///
    /// # Errors
    /// It is not a `T`.
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(&self.content).map_err(WireError::Json)
    }
}

#[derive(Serialize)]
struct RequestHeader<'a> {
    msg_id: &'a str,
    session: &'a str,
    username: &'a str,
    date: String,
    msg_type: &'a str,
    version: &'a str,
}

/// The identity of a client towards one kernel.
#[derive(Debug, Clone)]
pub struct Session {
    key: String,
    id: String,
    sent: u64,
}

impl Session {
    /// Makes a session that signs with `key`.
    #[must_use]
    pub fn new(key: String, id: String) -> Self {
        Self { key, id, sent: 0 }
    }

    /// Makes the frames of a request and the id that answers will name.
    ///
    /// # Errors
    /// The content can't be written as JSON.
    pub fn request<T: Serialize>(
        &mut self,
        msg_type: &str,
        content: &T,
    ) -> Result<(String, Vec<Bytes>), WireError> {
        self.sent += 1;
        let msg_id = format!("{}_{}", self.id, self.sent);
        let header = RequestHeader {
            msg_id: &msg_id,
            session: &self.id,
            username: "warren",
            date: time::iso8601(SystemTime::now()),
            msg_type,
            version: VERSION,
        };
        let header = serde_json::to_vec(&header).map_err(WireError::Json)?;
        let content = serde_json::to_vec(content).map_err(WireError::Json)?;
        let frames = self.frames([header.into(), "{}".into(), "{}".into(), content.into()]);
        Ok((msg_id, frames))
    }

    fn frames(&self, parts: [Bytes; PARTS - 1]) -> Vec<Bytes> {
        let mut mac = self.mac();
        for part in &parts {
            mac.update(part);
        }
        let signature = hex::encode(mac.finalize().into_bytes());
        let mut frames = vec![Bytes::from_static(DELIMITER), signature.into()];
        frames.extend(parts);
        frames
    }

    /// Decodes a kernel's message.
    ///
    /// # Errors
    /// It is malformed or not signed with the key.
    pub fn decode(&self, frames: &[Bytes]) -> Result<Message, WireError> {
        let at = frames
            .iter()
            .position(|frame| frame.as_ref() == DELIMITER)
            .ok_or(WireError::Frames)?;
        let parts = frames
            .get(at + 1..at + 1 + PARTS)
            .ok_or(WireError::Frames)?;
        let [signature, header, parent, metadata, content] = parts else {
            return Err(WireError::Frames);
        };
        let mut mac = self.mac();
        for part in [header, parent, metadata, content] {
            mac.update(part);
        }
        let signature = hex::decode(signature).map_err(|_| WireError::Signature)?;
        mac.verify_slice(&signature)
            .map_err(|_| WireError::Signature)?;
        let header: Header = serde_json::from_slice(header).map_err(WireError::Json)?;
        let parent: Option<Parent> = serde_json::from_slice(parent).map_err(WireError::Json)?;
        Ok(Message {
            header,
            parent: parent.and_then(|parent| parent.msg_id),
            content: content.clone(),
        })
    }

    #[expect(
        clippy::expect_used,
        reason = "the algorithm takes keys of every length"
    )]
    fn mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(self.key.as_bytes()).expect("any key length fits")
    }
}

/// Makes a kernel's message: what a test kernel needs.
///
/// # Errors
/// The content can't be written as JSON.
pub fn reply_frames<T: Serialize>(
    key: &str,
    msg_type: &str,
    parent: &str,
    id: &str,
    content: &T,
) -> Result<Vec<Bytes>, WireError> {
    let session = Session::new(key.to_owned(), "kernel".to_owned());
    let header = serde_json::json!({
        "msg_id": id, "msg_type": msg_type, "session": "kernel", "username": "kernel",
        "date": time::iso8601(SystemTime::now()), "version": VERSION,
    });
    let parent = serde_json::json!({ "msg_id": parent });
    let json = |value: &serde_json::Value| serde_json::to_vec(value).map_err(WireError::Json);
    let content = serde_json::to_vec(content).map_err(WireError::Json)?;
    Ok(session.frames([
        json(&header)?.into(),
        json(&parent)?.into(),
        "{}".into(),
        content.into(),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_signs_the_other_reads() {
        let mut client = Session::new("key".into(), "s".into());
        let (id, mut frames) = client
            .request("execute_request", &serde_json::json!({"code": "1"}))
            .unwrap();
        frames.insert(0, Bytes::from_static(b"identity"));
        let kernel = Session::new("key".into(), "k".into());
        let message = kernel.decode(&frames).unwrap();
        assert_eq!(message.header.msg_id, id);
        assert_eq!(message.header.msg_type, "execute_request");
        assert_eq!(message.parent, None);
        let content: serde_json::Value = message.content().unwrap();
        assert_eq!(content, serde_json::json!({"code": "1"}));
    }

    #[test]
    fn other_keys_and_missing_frames_are_refused() {
        let session = Session::new("other".into(), "k".into());
        let frames = reply_frames("key", "status", "p", "1", &"x").unwrap();
        assert!(matches!(session.decode(&frames), Err(WireError::Signature)));
        assert!(matches!(
            session.decode(&frames[..4]),
            Err(WireError::Frames)
        ));
        assert!(matches!(session.decode(&[]), Err(WireError::Frames)));
    }
}
