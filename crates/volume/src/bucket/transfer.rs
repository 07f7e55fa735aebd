//! What of an image is not in the bucket yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::manifest::{self, CHUNK, Manifest};

/// Chunks to put into the bucket, by their name there: their number in the image.
pub(super) type Fresh = BTreeMap<String, u64>;

/// Lists the chunks of `image` in `next`, and returns those that `known` lacks.
pub(super) fn compare(image: &Path, known: &Manifest, next: &mut Manifest) -> io::Result<Fresh> {
    let file = File::open(image)?;
    let by_digest: BTreeMap<&str, &String> = known
        .chunks
        .values()
        .filter_map(|name| Some((manifest::digest_of(name)?, name)))
        .collect();
    let mut fresh = Fresh::new();
    next.chunks.clear();
    let mut at = 0;
    while let Some(data) = next_data(&file, at)? {
        let number = data / CHUNK;
        let bytes = read_chunk(&file, number, next.size)?;
        if bytes.iter().any(|byte| *byte != 0) {
            let digest = Sha256::digest(&bytes);
            let name = match by_digest.get(manifest::hex(&digest).as_str()) {
                Some(name) => (*name).clone(),
                None => {
                    let name = manifest::chunk_name(next.generation, &digest);
                    fresh.insert(name.clone(), number);
                    name
                }
            };
            next.chunks.insert(number, name);
        }
        at = (number + 1) * CHUNK;
    }
    Ok(fresh)
}

/// Where the first data at or after an offset is.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A chunk of an image of this size.
pub(super) fn read_chunk(file: &File, number: u64, size: u64) -> io::Result<Vec<u8>> {
    let start = number * CHUNK;
    let length = size.saturating_sub(start).min(CHUNK);
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_fresh_and_zeros_are_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = File::create(&path).unwrap();
        let size = 10 * CHUNK + 4096;
        file.set_len(size).unwrap();
        file.write_all_at(b"a", 0).unwrap();
        file.write_all_at(&[0; 4096], 3 * CHUNK).unwrap();
        file.write_all_at(b"b", 5 * CHUNK + 17).unwrap();
        file.write_all_at(b"a", 7 * CHUNK).unwrap();
        file.write_all_at(b"end", size - 3).unwrap();
        let empty = Manifest::default();
        let mut first = Manifest {
            generation: 1,
            size,
            ..Manifest::default()
        };
        let fresh = compare(&path, &empty, &mut first).unwrap();
        assert_eq!(
            first.chunks.keys().copied().collect::<Vec<_>>(),
            [0, 5, 7, 10]
        );
        // Two of them are the same.
        assert_eq!(fresh.len(), 3);
        assert_eq!(first.chunks[&0], first.chunks[&7]);

        file.write_all_at(b"c", 5 * CHUNK + 18).unwrap();
        file.write_all_at(b"\0", 7 * CHUNK).unwrap();
        let mut second = Manifest {
            generation: 2,
            size,
            ..Manifest::default()
        };
        let fresh = compare(&path, &first, &mut second).unwrap();
        assert_eq!(fresh.values().copied().collect::<Vec<_>>(), [5]);
        assert_eq!(
            second.chunks.keys().copied().collect::<Vec<_>>(),
            [0, 5, 10]
        );
        assert_eq!(second.chunks[&0], first.chunks[&0]);
        let file = File::open(&path).unwrap();
        assert_eq!(read_chunk(&file, 10, size).unwrap().len(), 4096);
    }
}
