//! Multipart bodies: the first byte cuts the body into pieces. However it is cut, the same
//! content comes out, and never more than went in.

#![no_main]

use warren_envd::files::multipart::{Item, Parser, boundary};

fn content(body: &[u8], piece: usize) -> Option<Vec<u8>> {
    let boundary = boundary("multipart/form-data; boundary=b").ok()?;
    let mut parser = Parser::new(&boundary);
    let mut found = Vec::new();
    for bytes in body.chunks(piece) {
        parser.push(bytes);
        loop {
            match parser.next_item() {
                Ok(Some(Item::Data(data))) => found.extend_from_slice(&data),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
    Some(found)
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let whole = content(rest, rest.len().max(1));
    let pieces = content(rest, usize::from(*first).max(1));
    if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
        assert!(whole.len() <= rest.len());
        assert_eq!(whole, pieces);
    }
    if let Ok(text) = std::str::from_utf8(rest) {
        let _ = warren_envd::files::disposition::parse(text);
        let _ = boundary(text);
    }
});
