use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::*;
use crate::layers::LayerStore;

const DIGEST: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A bundle of one layer and tools.
    fn bundle(&self) -> PathBuf {
        let layer = self.path("layer");
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::write(layer.join("etc/name"), "base").unwrap();
        fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o2711)).unwrap();
        symlink("../x", layer.join("etc/link")).unwrap();
        let tools = self.path("tools");
        fs::create_dir(&tools).unwrap();
        fs::write(tools.join("criu"), "program").unwrap();
        fs::write(self.path("program"), "ELF").unwrap();
        let contents = Contents {
            program: &self.path("program"),
            version: "1.2.3",
            templates: vec!["base".to_owned()],
            layers: vec![(DIGEST.to_owned(), layer)],
            tools: Some(tools),
        };
        let file = self.path("bundle.tar");
        create(&file, &contents, |_| {}).unwrap();
        file
    }

    fn install(&self, file: &Path) -> Result<Manifest, BundleError> {
        let store = LayerStore::open(&self.path("to/layers")).unwrap();
        let to = Destination {
            layers: &store,
            program: Some(&self.path("to/bin/warren")),
            tools: &self.path("to/tools/criu"),
        };
        install(file, &to, |_| {})
    }

    fn install_bytes(&self, bytes: &[u8]) -> Result<Manifest, BundleError> {
        let file = self.path("other.tar");
        fs::write(&file, bytes).unwrap();
        self.install(&file)
    }

    /// What is below the place of installations.
    fn installed(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.symlink_metadata().unwrap().is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path("to"), &mut found);
        found.retain(|path| path.extension().is_none_or(|extension| extension != "lock"));
        found.sort();
        found
    }
}

#[test]
fn what_is_packed_is_installed_and_nothing_else_is_left() {
    let place = Place::new();
    let file = place.bundle();
    let manifest = place.install(&file).unwrap();
    assert_eq!(
        (manifest.version.as_str(), manifest.parts.len()),
        ("1.2.3", 2)
    );
    let layer = place.path("to/layers").join(DIGEST);
    let etc = fs::metadata(layer.join("etc")).unwrap();
    assert_eq!(etc.mode() & 0o7777, 0o2711);
    let program = place.path("to/bin/warren");
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o777, 0o755);
    let texts = [
        (layer.join("etc/name"), "base"),
        (program, "ELF"),
        (place.path("to/tools/criu/criu"), "program"),
    ];
    for (path, text) in &texts {
        assert_eq!(&fs::read_to_string(path).unwrap(), text);
    }
    let mut all: Vec<_> = texts.into_iter().map(|(path, _)| path).collect();
    all.push(layer.join("etc/link"));
    all.sort();
    assert_eq!(place.installed(), all);
    // Once more changes nothing.
    place.install(&file).unwrap();
    assert_eq!(place.installed(), all);
}

#[test]
fn the_program_can_be_had_from_the_beginning_by_any_tar() {
    let place = Place::new();
    let bytes = fs::read(place.bundle()).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut first = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(first.path().unwrap(), Path::new("warren"));
    assert_eq!(first.header().mode().unwrap(), 0o755);
    let mut text = String::new();
    first.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ELF");
}

#[test]
fn a_bundle_replaces_no_file_and_leaves_no_draft() {
    let place = Place::new();
    let file = place.bundle();
    let before = fs::read(&file).unwrap();
    let contents = Contents {
        program: &place.path("program"),
        version: "1.2.4",
        templates: Vec::new(),
        layers: Vec::new(),
        tools: None,
    };
    let again = create(&file, &contents, |_| {});
    assert!(matches!(again, Err(BundleError::Exists(_))), "{again:?}");
    assert_eq!(fs::read(&file).unwrap(), before);
    // A failure in the middle leaves nothing either.
    let missing = Contents {
        layers: vec![(DIGEST.to_owned(), place.path("nowhere"))],
        ..contents
    };
    let half = create(&place.path("half.tar"), &missing, |_| {});
    assert!(matches!(half, Err(BundleError::Io { .. })), "{half:?}");
    let mut left: Vec<_> = fs::read_dir(place.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["bundle.tar", "layer", "program", "tools"]);
}

#[test]
fn a_cut_bundle_is_refused_and_what_it_lacks_comes_with_the_whole_one() {
    let place = Place::new();
    let file = place.bundle();
    let whole = fs::read(&file).unwrap();
    for cut in [0, 100, 700, whole.len() / 3, whole.len() - 2048] {
        assert!(place.install_bytes(&whole[..cut]).is_err(), "{cut}");
        assert!(!place.path("to/bin/warren").exists(), "{cut}");
    }
    place.install(&file).unwrap();
    assert!(place.path("to/bin/warren").exists());
}

/// A bundle as somebody else writes it.
struct Forged {
    manifest: Value,
    layer: Vec<u8>,
    entry: String,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn add(archive: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    // Past the library, which refuses paths that lead elsewhere.
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    archive.append(&header, bytes).unwrap();
}

impl Forged {
    /// One that is right, around a layer.
    fn around(layer: Vec<u8>) -> Self {
        let part = json!({"kind": "layer", "name": DIGEST, "diff_id": digest(&layer)});
        Self {
            manifest: json!({
                "form": 1, "version": "1", "machine": std::env::consts::ARCH,
                "templates": ["base"], "program": digest(b"ELF"), "parts": [part],
            }),
            layer,
            entry: format!("layers/{DIGEST}.tar.gz"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        add(&mut archive, "warren", EntryType::Regular, b"ELF");
        let text = self.manifest.to_string();
        add(
            &mut archive,
            "manifest.json",
            EntryType::Regular,
            text.as_bytes(),
        );
        add(&mut archive, &self.entry, EntryType::Regular, &self.layer);
        archive.into_inner().unwrap()
    }
}

/// A layer with one entry.
fn layer_of(name: &str, kind: EntryType) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    add(&mut archive, name, kind, b"");
    archive.into_inner().unwrap()
}

#[test]
fn manifests_of_strangers_are_refused_with_the_reason() {
    let place = Place::new();
    let plain = || Forged::around(layer_of("file", EntryType::Regular));
    place.install_bytes(&plain().bytes()).unwrap();
    fs::remove_dir_all(place.path("to")).unwrap();
    let changed = |change: &dyn Fn(&mut Forged)| {
        let mut forged = plain();
        change(&mut forged);
        let error = place.install_bytes(&forged.bytes()).unwrap_err();
        assert_eq!(place.installed(), [] as [PathBuf; 0], "{error}");
        error.to_string()
    };
    type Case<'a> = (&'a dyn Fn(&mut Forged), &'a str);
    let cases: [Case<'_>; 9] = [
        (&|it| it.manifest["form"] = json!(2), "of form 2"),
        (
            &|it| it.manifest["machine"] = json!("vax"),
            "for vax machines",
        ),
        (
            &|it| it.manifest["version"] = json!("1\u{1b}[2J"),
            "a bad manifest",
        ),
        (
            &|it| it.manifest["parts"][0]["name"] = json!("../../etc"),
            "a bad manifest",
        ),
        (
            &|it| it.manifest["parts"][0]["diff_id"] = json!("sha256:"),
            "a bad manifest",
        ),
        (
            &|it| it.manifest["program"] = json!(digest(b"other")),
            "the program is not",
        ),
        (
            &|it| it.manifest["parts"] = json!([]),
            "an entry that is not announced",
        ),
        (
            &|it| it.entry = "../../etc/passwd".to_owned(),
            "is no bundle",
        ),
        (
            &|it| {
                let part = it.manifest["parts"][0].clone();
                it.manifest["parts"] = json!(vec![part; 300]);
            },
            "a bad manifest",
        ),
    ];
    for (change, why) in cases {
        let told = changed(change);
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn layers_of_strangers_stay_in_their_directory() {
    let place = Place::new();
    for (name, kind) in [
        ("../../../escaped", EntryType::Regular),
        ("/../escaped", EntryType::Regular),
        ("sda", EntryType::Block),
        ("tty", EntryType::Char),
    ] {
        let forged = Forged::around(layer_of(name, kind));
        let error = place.install_bytes(&forged.bytes()).unwrap_err();
        assert!(matches!(error, BundleError::Damaged { .. }), "{error}");
        assert_eq!(place.installed(), [] as [PathBuf; 0], "{name}");
    }
    // A link that leads out of the layer leads to a place in it.
    let mut archive = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    archive
        .append_link(&mut header, "out", place.0.path())
        .unwrap();
    add(&mut archive, "out/escaped", EntryType::Regular, b"x");
    let forged = Forged::around(archive.into_inner().unwrap());
    place.install_bytes(&forged.bytes()).ok();
    assert!(!place.path("escaped").exists());
}

#[test]
fn an_announced_name_of_any_size_is_not_taken_into_memory() {
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(vec![b'x'; 1 << 20]);
    let error = place.install_bytes(&bytes).unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("an extension header of"), "{cause}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever byte is damaged: either it is refused, or what is installed is what was
    /// packed. Nothing half is ever seen.
    #[test]
    fn a_damaged_bundle_installs_what_was_packed_or_nothing(
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let place = Place::new();
        let mut bytes = fs::read(place.bundle()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let result = place.install_bytes(&bytes);
        let layer = place.path("to/layers").join(DIGEST);
        if layer.exists() {
            prop_assert_eq!(fs::read_to_string(layer.join("etc/name")).unwrap(), "base");
        }
        let program = place.path("to/bin/warren");
        prop_assert_eq!(program.exists(), result.is_ok());
        if result.is_ok() {
            prop_assert_eq!(fs::read_to_string(program).unwrap(), "ELF");
            prop_assert!(layer.exists() && place.path("to/tools/criu/criu").exists());
        }
        let is_partial = |path: &PathBuf| path.to_string_lossy().contains("partial");
        prop_assert!(!place.installed().iter().any(is_partial));
    }
}
