//! Bodies of the fuzz targets and of the tests over their seeds.

use crate::files::multipart::{Item, Parser, boundary};
use crate::files::{disposition, multipart};
use crate::paths::{clean, resolve};

/// What files' parts hold, when the body comes in pieces of this size.
fn content(body: &[u8], piece: usize) -> Option<Vec<u8>> {
    let boundary = boundary("multipart/form-data; boundary=b").ok()?;
    let mut parser = Parser::new(&boundary);
    let mut found = Vec::new();
    for bytes in body.chunks(piece) {
        parser.push(bytes);
        loop {
            match parser.next_item() {
                Ok(Some(Item::Data(data))) => found.extend_from_slice(&data),
                // It is told again and again: the body is over.
                Ok(Some(Item::End)) => return Some(found),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
    Some(found)
}

/// Reads hostile bytes as a multipart body, which the first byte cuts into pieces: however it
/// is cut, the same content comes out, and never more than went in.
///
/// # Panics
/// When an invariant is broken.
pub fn check_multipart_input(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let whole = content(rest, rest.len().max(1));
    let pieces = content(rest, usize::from(*first).max(1));
    if let (Some(whole), Some(pieces)) = (&whole, &pieces) {
        assert!(whole.len() <= rest.len(), "content does not grow");
        assert_eq!(whole, pieces);
    }
    if let Ok(text) = std::str::from_utf8(rest) {
        // Any answer will do, as long as there is one.
        drop(disposition::parse(text));
        drop(multipart::boundary(text));
    }
}

/// Reads hostile bytes as a path of a client: what is resolved is absolute, and cleaning is
/// final.
///
/// # Panics
/// When an invariant is broken.
pub fn check_path_input(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(resolved) = resolve(path, "/home/user", None) {
        assert!(resolved.starts_with('/'), "{resolved:?}");
        assert!(!resolved.contains('\0'), "{resolved:?}");
        // Only absolute paths are taken as they are; all others stay free of `..`.
        if !path.starts_with('/') {
            assert!(
                !resolved.split('/').any(|part| part == ".."),
                "{resolved:?}"
            );
        }
    }
    let cleaned = clean(path);
    assert_eq!(clean(&cleaned), cleaned);
    assert!(
        !cleaned.split('/').any(|part| part == ".." || part == "."),
        "{cleaned:?}"
    );
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run_seeds(target: &str, check: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        let mut count = 0;
        for entry in std::fs::read_dir(seeds.join(target)).unwrap() {
            check(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has seeds");
    }

    #[test]
    fn the_seeds_of_multipart_hold() {
        run_seeds("multipart", check_multipart_input);
    }

    #[test]
    fn the_seeds_of_paths_hold() {
        run_seeds("paths", check_path_input);
    }
}
