//! Tests of unpacking. They need root, as owners and marks of deletion do.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tar::{Builder, Header};

use super::*;

type Entry<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, text) in entries {
        let mut header = Header::new_gnu();
        // The safe setters refuse what is to be tested.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(7);
        header.set_gid(3_000_000);
        header.set_mtime(1_000_000_000);
        let content = match kind {
            EntryType::Symlink | EntryType::Link => {
                header.set_link_name_literal(text).unwrap();
                ""
            }
            _ => text,
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn diff_id(plain: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(plain)))
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn unpack(entries: &[Entry<'_>]) -> (Self, Result<(), UnpackError>) {
        let place = Self {
            dir: tempfile::tempdir_in("/var/tmp").unwrap(),
        };
        let bytes = archive(entries);
        let result = unpack(
            &*bytes,
            &diff_id(&bytes),
            &place.root(),
            &Budget::new(1 << 20),
        );
        (place, result)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("layer")
    }
}

fn opaque(path: &Path) -> bool {
    let mut value = [0u8; 8];
    let found = rustix::fs::lgetxattr(path, c"trusted.overlay.opaque", &mut value);
    found.is_ok_and(|length| &value[..length] == b"y")
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

#[test]
fn entries_keep_mode_owner_time_and_links() {
    let (place, result) = Place::unpack(&[
        ("./", DIR, ""),
        ("d", DIR, ""),
        ("d/f", FILE, "text"),
        ("made/on/the/way", FILE, "x"),
        ("d/h", EntryType::Link, "d/f"),
        ("s", EntryType::Symlink, "/d"),
        ("s/below", FILE, "y"),
        ("p", EntryType::Fifo, ""),
        ("dev/null", EntryType::Char, ""),
    ]);
    result.unwrap();
    let root = place.root();
    let meta = fs::metadata(root.join("d/f")).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o4755, 7, NOBODY)
    );
    assert_eq!((meta.nlink(), meta.mtime()), (2, 1_000_000_000));
    assert_eq!(fs::metadata(root.join("d")).unwrap().mtime(), 1_000_000_000);
    assert!(
        fs::symlink_metadata(root.join("p"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    // An absolute link leads to a place in the layer.
    assert_eq!(fs::read_to_string(root.join("d/below")).unwrap(), "y");
    assert!(!Path::new("/d/below").exists());
    assert!(!root.join("dev/null").exists());
}

#[test]
fn deletions_take_the_form_of_the_overlay() {
    let (place, result) = Place::unpack(&[
        (".wh.gone", FILE, ""),
        ("d/.wh..wh..opq", FILE, ""),
        ("d/new", FILE, "x"),
        (".wh.again", FILE, ""),
        ("again", DIR, ""),
        ("kept", DIR, ""),
        (".wh.kept", FILE, ""),
        (".wh.file", FILE, ""),
        ("file", FILE, "x"),
        (".wh..wh.plnk", FILE, ""),
    ]);
    result.unwrap();
    let root = place.root();
    assert!(is_whiteout(&root.join("gone")));
    assert!(opaque(&root.join("d")) && opaque(&root.join("again")) && opaque(&root.join("kept")));
    assert!(fs::metadata(root.join("file")).unwrap().is_file());
    let mut names: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["again", "d", "file", "gone", "kept"]);
}

#[test]
fn hostile_entries_are_refused_or_stay_inside() {
    for bad in [
        &[("../x", FILE, "x")][..],
        &[("/etc/x", FILE, "x")],
        &[("a/../../x", FILE, "x")],
        &[("n", EntryType::Char, "")],
        &[("n", EntryType::Block, "")],
        &[("h", EntryType::Link, "/etc/passwd")],
        &[("h", EntryType::Link, "../../etc/passwd")],
        &[("h", EntryType::Link, "missing")],
        &[(".wh...", FILE, "")],
        &[(".wh.", FILE, "")],
        &[("d/f", FILE, "x"), ("d", FILE, "x")],
    ] {
        let (_place, result) = Place::unpack(bad);
        assert!(result.is_err(), "{bad:?}");
    }
    // Links out of the layer end in it.
    let (place, result) = Place::unpack(&[
        ("up", EntryType::Symlink, "../../../.."),
        ("up/escaped", FILE, "x"),
    ]);
    result.unwrap();
    assert!(place.root().join("escaped").exists());
    // A link as the last part is replaced, not followed.
    let (place, result) = Place::unpack(&[
        ("l", EntryType::Symlink, "/etc/passwd"),
        ("l", FILE, "mine"),
    ]);
    result.unwrap();
    assert_eq!(fs::read_to_string(place.root().join("l")).unwrap(), "mine");
}

#[test]
fn digests_and_sizes_are_checked_in_every_compression() {
    let plain = archive(&[("f", FILE, "text")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&*plain, 1).unwrap();
    for bytes in [&plain, &gzip, &zstd] {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().join("layer");
        unpack(&**bytes, &diff_id(&plain), &root, &Budget::new(1 << 20)).unwrap();
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "text");
        let other = dir.path().join("other");
        let result = unpack(&**bytes, &diff_id(b""), &other, &Budget::new(1 << 20));
        assert!(matches!(result, Err(UnpackError::Digest { .. })));
    }
    // A small stream that becomes a large file.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    bomb.write_all(&vec![0; 1 << 20]).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let budget = Budget::new(1 << 20);
    let result = unpack(&*bomb.finish().unwrap(), "", &dir.path().join("l"), &budget);
    assert!(
        matches!(result, Err(UnpackError::TooLarge(_))),
        "{result:?}"
    );
}
