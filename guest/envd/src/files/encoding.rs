//! Content codings: which one a client wants, and gzip in both directions.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};

/// How content is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// Compressed.
    Gzip,
}

/// What a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The coding to use.
    pub best: Coding,
    /// Whether plain content would do.
    pub identity: bool,
}

/// Reads `Accept-Encoding`; `None` when nothing that we have is acceptable.
#[must_use]
pub fn negotiate(value: Option<&str>) -> Option<Accepted> {
    let identity_only = Accepted {
        best: Coding::Identity,
        identity: true,
    };
    let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
        return Some(identity_only);
    };
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for item in value.split(',') {
        let mut parts = item.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let quality = quality(parts);
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let identity_ok = identity.or(any).unwrap_or(1) > 0;
    let gzip = match (gzip, any) {
        (Some(quality), _) => quality,
        // The wildcard stands for identity unless that is refused.
        (None, Some(quality)) if !identity_ok => quality,
        (None, _) => 0,
    };
    // Identity that is merely not refused loses to anything that is asked for.
    let plain = identity.or(any).unwrap_or(0);
    if gzip > 0 && gzip >= plain {
        return Some(Accepted {
            best: Coding::Gzip,
            identity: identity_ok,
        });
    }
    identity_ok.then_some(identity_only)
}

/// Reads `q` in thousandths; absent is 1, nonsense is 0.
fn quality<'a>(parameters: impl Iterator<Item = &'a str>) -> u16 {
    for parameter in parameters {
        let Some((name, value)) = parameter.split_once('=') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("q") {
            let parsed: f32 = value.trim().parse().unwrap_or(0.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped to 0..=1000 before"
            )]
            let thousandths = (parsed.clamp(0.0, 1.0) * 1000.0) as u16;
            return thousandths;
        }
    }
    1000
}

/// Reads a request's `Content-Encoding`; the error is the name of one we don't have.
///
/// # Errors
/// An unsupported coding.
pub fn request_coding(value: Option<&str>) -> Result<Coding, String> {
    let value = value.unwrap_or_default().trim();
    match value.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" => Ok(Coding::Gzip),
        _ => Err(value.to_owned()),
    }
}

/// Compresses content piece by piece.
#[derive(Debug)]
pub struct Compressor(GzEncoder<Vec<u8>>);

impl Default for Compressor {
    fn default() -> Self {
        Self(GzEncoder::new(Vec::new(), Compression::fast()))
    }
}

impl Compressor {
    /// Adds content and returns what is compressed so far, possibly nothing.
    ///
    /// # Errors
    /// None in practice: the output is memory.
    pub fn push(&mut self, content: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(content)?;
        Ok(std::mem::take(self.0.get_mut()))
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// None in practice: the output is memory.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.0.finish()
    }
}

/// Decompresses content piece by piece.
pub struct Decompressor(MultiGzDecoder<Vec<u8>>);

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

impl Default for Decompressor {
    fn default() -> Self {
        Self(MultiGzDecoder::new(Vec::new()))
    }
}

impl Decompressor {
    /// Most bytes to push at once: they grow about a thousandfold at worst.
    pub const MAX_PIECE: usize = 1024;

    /// Adds at most [`Self::MAX_PIECE`] compressed bytes and returns the content so far.
    ///
    /// # Errors
    /// The bytes are not gzip.
    pub fn push(&mut self, compressed: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(compressed)?;
        Ok(std::mem::take(self.0.get_mut()))
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// The stream is cut short or its checksum is wrong.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        self.0.try_finish()?;
        Ok(std::mem::take(self.0.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_send() {
        let best = |value| negotiate(value).map(|a| (a.best, a.identity));
        assert_eq!(best(None), Some((Coding::Identity, true)));
        assert_eq!(best(Some("gzip, deflate")), Some((Coding::Gzip, true)));
        assert_eq!(best(Some("gzip;q=0")), Some((Coding::Identity, true)));
        assert_eq!(best(Some("identity")), Some((Coding::Identity, true)));
        assert_eq!(best(Some("*")), Some((Coding::Identity, true)));
        assert_eq!(best(Some("br")), Some((Coding::Identity, true)));
        assert_eq!(best(Some("identity;q=0, br")), None);
        assert_eq!(
            best(Some("identity;q=0, gzip")),
            Some((Coding::Gzip, false))
        );
        assert_eq!(best(Some("identity;q=0, *")), Some((Coding::Gzip, false)));
        assert_eq!(best(Some("gzip, *;q=0")), Some((Coding::Gzip, false)));
        assert_eq!(best(Some("*;q=0")), None);
        assert_eq!(
            best(Some("gzip;q=0.5, identity")),
            Some((Coding::Identity, true))
        );
    }

    #[test]
    fn request_codings() {
        assert_eq!(request_coding(Some("GZIP")), Ok(Coding::Gzip));
        assert_eq!(request_coding(Some("identity")), Ok(Coding::Identity));
        assert_eq!(request_coding(Some("br")), Err("br".to_owned()));
    }

    proptest! {
        #[test]
        fn gzip_round_trips(content in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut compressor = Compressor::default();
            let mut compressed = compressor.push(&content).unwrap();
            compressed.extend(compressor.finish().unwrap());
            let mut decompressor = Decompressor::default();
            let mut back = Vec::new();
            for piece in compressed.chunks(Decompressor::MAX_PIECE) {
                back.extend(decompressor.push(piece).unwrap());
            }
            back.extend(decompressor.finish().unwrap());
            prop_assert_eq!(back, content);
        }

        #[test]
        fn arbitrary_values_never_panic(value in ".{0,60}") {
            let _ = negotiate(Some(&value));
        }
    }
}
