//! Media types of files.

/// Type of content that nothing is known about.
pub(crate) const OCTET_STREAM: &str = "application/octet-stream";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// The type that a file's name suggests.
pub(crate) fn by_extension(name: &str) -> Option<&'static str> {
    let (stem, extension) = name.rsplit_once('.')?;
    if stem.is_empty() && extension.is_empty() {
        return None;
    }
    Some(match extension.to_ascii_lowercase().as_str() {
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "css" => "text/css; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "gif" => "image/gif",
        "gz" => "application/gzip",
        "htm" | "html" => "text/html; charset=utf-8",
        "ico" => "image/vnd.microsoft.icon",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "md" => "text/markdown; charset=utf-8",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "tar" => "application/x-tar",
        "txt" => PLAIN_TEXT,
        "wasm" => "application/wasm",
        "wav" => "audio/x-wav",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "xml" => "text/xml; charset=utf-8",
        "zip" => "application/zip",
        _ => return None,
    })
}

/// The type that the first bytes suggest.
pub(crate) fn sniff(start: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 9] = [
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"PK\x03\x04", "application/zip"),
        (b"\x1f\x8b\x08", "application/x-gzip"),
        (b"\0asm", "application/wasm"),
        (b"<?xml", "text/xml; charset=utf-8"),
    ];
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return kind;
    }
    let text = start.trim_ascii_start();
    let is = |tag: &[u8]| {
        text.get(..tag.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(tag))
    };
    if is(b"<!doctype html") || is(b"<html") {
        return "text/html; charset=utf-8";
    }
    let binary = |b: &u8| matches!(b, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if start.iter().any(binary) {
        OCTET_STREAM
    } else {
        PLAIN_TEXT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_then_content() {
        assert_eq!(by_extension("a.JSON"), Some("application/json"));
        assert_eq!(by_extension("a"), None);
        assert_eq!(sniff(b"plain words"), PLAIN_TEXT);
        assert_eq!(sniff(b"\0\x01"), OCTET_STREAM);
        assert_eq!(sniff(b"  <HTML>"), "text/html; charset=utf-8");
    }
}
