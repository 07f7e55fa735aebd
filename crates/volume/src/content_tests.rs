use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;

use super::*;

struct Place {
    dir: tempfile::TempDir,
    content: Content,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("volume")).unwrap();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    let content = Content::of_directory(&dir.path().join("volume"));
    Place { dir, content }
}

fn path(text: &str) -> VolumePath {
    VolumePath::parse(text).unwrap()
}

fn force() -> NewNode {
    NewNode {
        force: true,
        ..NewNode::default()
    }
}

impl Place {
    fn write(&self, at: &str, text: &str, new: NewNode) -> Result<Entry, VolumeError> {
        let draft = self.content.write(&path(at), new)?;
        draft.file()?.write_all(text.as_bytes()).unwrap();
        draft.publish()
    }

    fn read(&self, at: &str) -> Result<String, VolumeError> {
        let (mut file, size) = self.content.read(&path(at))?;
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(size, text.len() as u64);
        Ok(text)
    }
}

#[test]
fn a_file_is_written_read_replaced_and_removed() {
    let place = place();
    let owner = Owner {
        uid: Some(1000),
        gid: Some(1001),
        mode: Some(0o600),
    };
    let new = NewNode {
        owner,
        force: false,
    };
    let entry = place.write("/a.txt", "one", new).unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.path.as_str()),
        ("a.txt", "/a.txt")
    );
    assert_eq!(
        (entry.uid, entry.gid, entry.mode, entry.size),
        (1000, 1001, 0o600, 3)
    );
    assert!(matches!(
        place.write("/a.txt", "two", NewNode::default()),
        Err(VolumeError::Exists)
    ));
    assert_eq!(place.write("/a.txt", "two", force()).unwrap().mode, 0o644);
    assert_eq!(place.read("/a.txt").unwrap(), "two");
    assert_eq!(place.content.list(&path("/"), 1).unwrap().len(), 1);
    place.content.remove(&path("/a.txt")).unwrap();
    for missing in ["/a.txt", "/"] {
        assert!(matches!(
            place.content.remove(&path(missing)),
            Err(VolumeError::NoPath)
        ));
    }
}

#[test]
fn an_upload_that_is_cut_leaves_nothing() {
    let place = place();
    place.write("/a", "old", NewNode::default()).unwrap();
    let draft = place.content.write(&path("/a"), force()).unwrap();
    draft.file().unwrap().write_all(b"half").unwrap();
    drop(draft);
    assert_eq!(place.read("/a").unwrap(), "old");
    assert_eq!(place.content.list(&path("/"), 1).unwrap().len(), 1);
}

#[test]
fn directories_are_made_with_and_without_force() {
    let place = place();
    let make = |at: &str, new| place.content.make_directory(&path(at), new);
    assert!(matches!(
        make("/a/b", NewNode::default()),
        Err(VolumeError::NoPath)
    ));
    assert_eq!(make("/a/b/c", force()).unwrap().kind, EntryKind::Directory);
    make("/a/b/c", force()).unwrap();
    assert!(matches!(
        make("/a/b/c", NewNode::default()),
        Err(VolumeError::Exists)
    ));
    place.write("/f", "", NewNode::default()).unwrap();
    assert!(matches!(
        make("/f/x", force()),
        Err(VolumeError::NotDirectory)
    ));
    assert!(matches!(make("/f", force()), Err(VolumeError::Exists)));
    assert!(matches!(
        place.write("/no/where", "", force()),
        Err(VolumeError::NoPath)
    ));
    assert!(matches!(
        place.write("/a", "", force()),
        Err(VolumeError::IsDirectory)
    ));
    let listed = |depth| {
        let entries = place.content.list(&path("/"), depth).unwrap();
        entries
            .into_iter()
            .map(|entry| entry.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(1), ["/a", "/f"]);
    assert_eq!(listed(9), ["/a", "/a/b", "/a/b/c", "/f"]);
    assert!(matches!(
        place.content.list(&path("/f"), 1),
        Err(VolumeError::NoPath)
    ));
}

#[test]
fn links_never_lead_outside() {
    let place = place();
    let volume = place.dir.path().join("volume");
    symlink(place.dir.path().join("secret"), volume.join("absolute")).unwrap();
    symlink("../secret", volume.join("relative")).unwrap();
    symlink("..", volume.join("up")).unwrap();
    symlink("/proc/self/root", volume.join("magic")).unwrap();
    for at in [
        "/absolute",
        "/relative",
        "/up/secret",
        "/magic/etc/passwd",
        "/../secret",
        "/../../etc/passwd",
    ] {
        assert!(matches!(place.read(at), Err(VolumeError::NoPath)), "{at}");
    }
    // Written through, the link is replaced and not what it leads to.
    place.write("/relative", "inside", force()).unwrap();
    place
        .write("/up/secret", "inside", NewNode::default())
        .unwrap();
    assert_eq!(fs::read_to_string(volume.join("secret")).unwrap(), "inside");
    fs::remove_file(volume.join("secret")).unwrap();
    let owner = Owner {
        mode: Some(0o777),
        ..Owner::default()
    };
    assert!(place.content.set_owner(&path("/absolute"), owner).is_err());
    place.content.remove(&path("/absolute")).unwrap();
    place.content.remove(&path("/up")).unwrap();
    let outside = fs::read_to_string(place.dir.path().join("secret")).unwrap();
    assert_eq!(outside, "outside");
    assert_eq!(
        place
            .content
            .stat(&path("/magic"))
            .unwrap()
            .target
            .as_deref(),
        Some("/proc/self/root")
    );
}

#[test]
fn a_link_within_the_volume_works() {
    let place = place();
    place
        .content
        .make_directory(&path("/real"), force())
        .unwrap();
    place.write("/real/f", "text", NewNode::default()).unwrap();
    symlink("/real", place.dir.path().join("volume/alias")).unwrap();
    assert_eq!(place.read("/alias/f").unwrap(), "text");
}

#[test]
fn only_given_fields_change_and_foreign_ids_are_refused() {
    let place = place();
    place.write("/f", "", NewNode::default()).unwrap();
    let set = |owner| place.content.set_owner(&path("/f"), owner);
    let mode = Owner {
        mode: Some(0o640),
        ..Owner::default()
    };
    assert_eq!(set(mode).unwrap().mode, 0o640);
    let uid = Owner {
        uid: Some(7),
        ..Owner::default()
    };
    let entry = set(uid).unwrap();
    assert_eq!((entry.uid, entry.gid, entry.mode), (7, 0, 0o640));
    let bad = Owner {
        uid: Some(70_000),
        ..Owner::default()
    };
    assert!(matches!(set(bad), Err(VolumeError::Invalid(_))));
    assert!(matches!(
        place.content.set_owner(&path("/none"), mode),
        Err(VolumeError::NoPath)
    ));
}

#[test]
fn a_deep_tree_is_removed() {
    let place = place();
    let mut at = String::new();
    for _ in 0..300 {
        at.push_str("/d");
        let new = path(&at);
        place
            .content
            .make_directory(&new, NewNode::default())
            .unwrap();
    }
    place
        .write(&format!("{at}/f"), "x", NewNode::default())
        .unwrap();
    place.write("/d/f", "x", NewNode::default()).unwrap();
    place.content.remove(&path("/d")).unwrap();
    assert!(place.content.list(&path("/"), 1).unwrap().is_empty());
}

#[test]
fn a_pipe_is_no_file() {
    let place = place();
    let at = place.dir.path().join("volume/pipe");
    rustix::fs::mknodat(CWD, &at, FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert!(matches!(place.read("/pipe"), Err(VolumeError::NoPath)));
    assert_eq!(
        place.content.stat(&path("/pipe")).unwrap().kind,
        EntryKind::Other
    );
}
