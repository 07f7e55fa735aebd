use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{FileType, XattrFlags, lgetxattr, makedev, mknodat, setxattr};

use super::super::export::{About, export};
use super::*;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn store(&self) -> LayerStore {
        LayerStore::open(&self.path("store")).unwrap()
    }

    /// Two layers with one of everything that layers may have.
    fn layers(&self) -> Vec<PathBuf> {
        let lower = self.path("lower");
        let deep = lower.join("d".repeat(60)).join("e".repeat(60));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "deep").unwrap();
        fs::write(lower.join("gone"), "x").unwrap();
        fs::write(lower.join("run"), "#!").unwrap();
        fs::set_permissions(lower.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(lower.join("run"), lower.join("same")).unwrap();
        symlink("t".repeat(150), lower.join("long-link")).unwrap();
        setxattr(
            lower.join("run"),
            c"user.note",
            b"kept",
            XattrFlags::empty(),
        )
        .unwrap();
        std::os::unix::fs::chown(&deep, Some(1000), Some(1001)).unwrap();
        let upper = self.path("upper");
        fs::create_dir_all(upper.join("opaque")).unwrap();
        let opaque = c"trusted.overlay.opaque";
        setxattr(upper.join("opaque"), opaque, b"y", XattrFlags::empty()).unwrap();
        let mode = Mode::from_raw_mode(0);
        let kind = FileType::CharacterDevice;
        mknodat(CWD, upper.join("gone"), kind, mode, makedev(0, 0)).unwrap();
        vec![lower, upper]
    }

    fn archive(&self) -> PathBuf {
        let about = About {
            env: BTreeMap::from([("A".to_owned(), "b c".to_owned())]),
            tag: "v1".to_owned(),
            ..About::default()
        };
        let path = self.path("image.tar");
        if path.exists() {
            return path;
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        export(&self.layers(), &about, file).unwrap();
        path
    }

    /// The same as a directory.
    fn directory(&self) -> PathBuf {
        let into = self.path("layout");
        let archive = fs::File::open(self.archive()).unwrap();
        tar::Archive::new(archive).unpack(&into).unwrap();
        into
    }
}

async fn unpacked(place: &Place, path: &Path, tag: Option<&str>) -> Result<Pulled, PullError> {
    let (store, tasks) = (place.store(), Tasks::new());
    LocalImage::open(path, tag, "oci:x")?
        .unpack((&store, "team", &tasks), &|_| {})
        .await
}

#[tokio::test]
async fn what_is_exported_comes_back_as_it_was() {
    let place = Place::new();
    let archive = place.archive();
    for path in [&archive, &place.directory()] {
        for tag in [None, Some("v1")] {
            let pulled = unpacked(&place, path, tag).await.unwrap();
            assert_eq!(pulled.env["A"], "b c");
            let [lower, upper] = &pulled.layers[..] else {
                panic!("{pulled:?}");
            };
            let dir = place.store().dir().join(lower);
            let deep = dir.join("d".repeat(60)).join("e".repeat(60));
            assert_eq!(fs::read_to_string(deep.join("file")).unwrap(), "deep");
            let owner = fs::metadata(&deep).unwrap();
            assert_eq!((owner.uid(), owner.gid()), (1000, 1001));
            let run = fs::metadata(dir.join("run")).unwrap();
            assert_eq!(run.mode() & 0o7777, 0o4755);
            assert_eq!(run.ino(), fs::metadata(dir.join("same")).unwrap().ino());
            let link = fs::read_link(dir.join("long-link")).unwrap();
            assert_eq!(link, PathBuf::from("t".repeat(150)));
            let mut value = [0; 8];
            let length = lgetxattr(dir.join("run"), c"user.note", &mut value).unwrap();
            assert_eq!(&value[..length], b"kept");
            let dir = place.store().dir().join(upper);
            let gone = fs::symlink_metadata(dir.join("gone")).unwrap();
            assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
            let opaque = lgetxattr(dir.join("opaque"), c"trusted.overlay.opaque", &mut value);
            assert_eq!(opaque, Ok(1));
        }
    }
    // The same layers are the same bytes.
    let again = Place::new();
    assert_eq!(
        fs::read(archive).unwrap().len(),
        fs::read(again.archive()).unwrap().len()
    );
}

async fn refusal(place: &Place, path: &Path, tag: Option<&str>) -> String {
    let refused = unpacked(place, path, tag).await.unwrap_err();
    warren_service::Chain(&refused).to_string()
}

#[tokio::test]
async fn broken_and_hostile_layouts_are_refused_and_leave_nothing() {
    let place = Place::new();
    let dir = place.directory();
    let other = refusal(&place, &dir, Some("other")).await;
    assert!(other.contains("image or tag does not exist"), "{other}");
    let index = fs::read_to_string(dir.join("index.json")).unwrap();
    let digest: Index = serde_json::from_str(&index).unwrap();
    let digest = &digest.manifests[0].digest;
    let hex = digest.strip_prefix("sha256:").unwrap();

    for (bad, told) in [
        ("../../../../etc/passwd", "no digest that is known"),
        ("sha256:../../index.json", "no digest that is known"),
        (&format!("sha512:{hex}"), "no digest that is known"),
        (&format!("sha256:{}", "0".repeat(64)), "is missing"),
    ] {
        fs::write(dir.join("index.json"), index.replace(digest.as_str(), bad)).unwrap();
        let text = refusal(&place, &dir, None).await;
        assert!(text.contains(told), "{bad}: {text}");
    }
    fs::write(dir.join("index.json"), &index).unwrap();

    // A link out of the layout is not followed, and changed content does not fit.
    let blob = dir.join(BLOBS).join(hex);
    let manifest = fs::read(&blob).unwrap();
    fs::remove_file(&blob).unwrap();
    symlink("/etc/passwd", &blob).unwrap();
    let text = refusal(&place, &dir, None).await;
    assert!(
        text.contains("failed to pull image 'oci:x': read blobs"),
        "{text}"
    );
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, [&manifest[..], b" "].concat()).unwrap();
    let text = refusal(&place, &dir, None).await;
    assert!(text.contains("does not fit its digest"), "{text}");

    fs::write(dir.join("index.json"), "{").unwrap();
    assert!(
        refusal(&place, &dir, None)
            .await
            .contains("can't be understood")
    );
    fs::write(dir.join("index.json"), vec![b' '; MAX_CONFIG + 1]).unwrap();
    assert!(refusal(&place, &dir, None).await.contains("is longer than"));
    fs::remove_file(dir.join("index.json")).unwrap();
    assert!(
        refusal(&place, &dir, None)
            .await
            .contains("no OCI image layout")
    );

    let junk = place.path("junk.tar");
    fs::write(&junk, b"junk".repeat(1000)).unwrap();
    assert!(
        refusal(&place, &junk, None)
            .await
            .contains("failed to pull image")
    );
    let cut = place.path("cut.tar");
    let whole = fs::read(place.path("image.tar")).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    assert!(
        refusal(&place, &cut, None)
            .await
            .contains("failed to pull image")
    );
    assert!(place.store().list().unwrap().is_empty());
}

#[tokio::test]
async fn a_layer_that_lies_or_bursts_is_refused() {
    let place = Place::new();
    let document = |value: &serde_json::Value| {
        let bytes = value.to_string().into_bytes();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let path = place.path("l").join(BLOBS).join(hex_of(&digest).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        digest
    };
    // Compressed a thousandfold: a file of 26 GB.
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(26 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    bomb.write_all(&[0; 1 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    for (layer, told) in [
        (bomb, "exceeds the maximum filesystem size"),
        (vec![0; 1024], "the digest of its content is not"),
    ] {
        let blob = format!("sha256:{}", hex::encode(Sha256::digest(&layer)));
        let config = document(&serde_json::json!({
            "architecture": architecture(), "rootfs": {"diff_ids": ["sha256:x"]},
        }));
        let path = place.path("l").join(BLOBS).join(hex_of(&blob).unwrap());
        fs::write(path, &layer).unwrap();
        let manifest = document(&serde_json::json!({
            "config": {"digest": config}, "layers": [{"digest": blob, "size": 5}],
        }));
        let index = serde_json::json!({"manifests": [{"digest": manifest}]});
        fs::write(place.path("l").join(INDEX), index.to_string()).unwrap();
        let text = refusal(&place, &place.path("l"), None).await;
        assert!(text.contains(told), "{text}");
    }
    assert!(place.store().list().unwrap().is_empty());
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}
