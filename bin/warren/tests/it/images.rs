//! Images of registries.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use warren_service::{Secret, Tasks};
use warren_template::build::{BuildFailure, Built, RegistryCredentials, Source};

use crate::registry::{Layer, Registry, digest};
use crate::support::{Stand, request, step};

pub(crate) const ARCH: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else {
    "arm64"
};

/// A tar archive of one entry, made by hand so that it may be anything.
pub(crate) fn entry(path: &str, kind: tar::EntryType, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(text.len() as u64);
    header.set_cksum();
    builder.append(&header, text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

async fn pull(
    stand: &Stand,
    address: SocketAddr,
    name: &str,
    steps: Vec<warren_template::build::Step>,
    credentials: Option<RegistryCredentials>,
) -> Result<Built, BuildFailure> {
    let mut request = request(steps);
    request.source = Source::Image {
        reference: format!("{address}/{name}"),
        credentials,
    };
    stand.build(request).await
}

/// The root file system of a well-known name as an archive, without what no test needs.
async fn root_archive(stand: &Stand) -> Vec<u8> {
    let mut plain = request(Vec::new());
    plain.source = Source::Image {
        reference: "debian:stable".to_owned(),
        credentials: None,
    };
    let built = stand.build(plain).await.unwrap();
    let layer = stand.shared().get(&built.image.layers[0]).unwrap().unwrap();
    let packed = Command::new("tar")
        .args([
            "-c",
            "--exclude=./usr/share/*",
            "--exclude=./var/lib/dpkg/*",
        ])
        .args(["--exclude=./usr/lib/*/perl*", "-C"])
        .arg(layer)
        .arg(".")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(packed.status.success());
    packed.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_with_its_variables_and_deletions() {
    let (registry, tasks) = (Registry::private(), Tasks::new());
    let address = registry.clone().serve(&tasks).await;
    let stand = Stand::start_with(vec![address.to_string()]).await;
    let root = root_archive(&stand).await;
    let mut second = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    second
        .append_data(&mut header, "etc/.wh.debian_version", &b""[..])
        .unwrap();
    header.set_size(3);
    second
        .append_data(&mut header, "opt/new", &b"new"[..])
        .unwrap();
    let second = second.into_inner().unwrap();
    // As many images have it: the same layer again.
    let empty = || Layer::plain(vec![0; 1024]);
    let zstd = Layer {
        diff_id: digest(&second),
        sent: zstd::encode_all(&*second, 1).unwrap(),
    };
    let env = ["FROM_IMAGE=yes", "PATH=/opt/bin:/usr/bin:/bin", "BROKEN"];
    registry.image(
        "team/image",
        vec![Layer::plain(root), empty(), zstd, empty()],
        &env,
        ARCH,
    );

    let check = "echo $FROM_IMAGE $PATH; id -un; pwd; cat /opt/new; ls /etc/debian_version; true";
    let steps = || vec![step("RUN", &[check])];
    let refused = pull(&stand, address, "team/image", steps(), None)
        .await
        .unwrap_err();
    assert!(
        refused.message.starts_with("access denied to '"),
        "{refused}"
    );
    let wrong = RegistryCredentials::Basic {
        username: "me".to_owned(),
        password: Secret::new("hunter2".to_owned()),
    };
    let refused = pull(&stand, address, "team/image", steps(), Some(wrong))
        .await
        .unwrap_err();
    assert!(
        refused.message.starts_with("access denied to '"),
        "{refused}"
    );
    assert_eq!(refused.step.as_deref(), Some("base"));

    let right = RegistryCredentials::Basic {
        username: "me".to_owned(),
        password: Secret::new("secret".to_owned()),
    };
    let built = pull(&stand, address, "team/image", steps(), Some(right)).await;
    let said = stand.said();
    let built = built.unwrap_or_else(|error| panic!("{error:?} {said:#?}"));
    for line in [
        "yes /opt/bin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin",
        "user",
        "/home/user",
        "new",
    ] {
        let line = format!("[builder 1/1] [stdout]: {line}");
        assert!(said.contains(&line), "{line} {said:#?}");
    }
    assert!(
        stand.heard("[stderr]: ls: cannot access '/etc/debian_version'"),
        "{said:#?}"
    );
    assert!(!said.iter().any(|line| line.contains("secret")));
    assert_eq!(
        built.image.env.get("FROM_IMAGE").map(String::as_str),
        Some("yes")
    );
    tasks.stop(std::time::Duration::from_secs(5)).await;
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_hostile_images_are_refused_and_leave_nothing() {
    let (registry, tasks) = (Registry::default(), Tasks::new());
    let address = registry.clone().serve(&tasks).await;
    let stand = Stand::start_with(vec![address.to_string()]).await;
    let before = stand.own_layers();
    let file = tar::EntryType::Regular;
    let one = |path: &str, kind| vec![Layer::plain(entry(path, kind, ""))];
    registry.image("up", one("../escaped", file), &[], ARCH);
    registry.image("absolute", one("/escaped", file), &[], ARCH);
    registry.image("device", one("node", tar::EntryType::Block), &[], ARCH);
    registry.image("other", one("fine", file), &[], "s390x");
    let lying = Layer {
        sent: entry("fine", file, "x"),
        diff_id: digest(b"something else"),
    };
    registry.image("lying", vec![lying], &[], ARCH);
    let bomb = {
        let mut header = tar::Header::new_gnu();
        header.set_path("zeros").unwrap();
        header.set_size(60 << 30);
        header.set_mode(0o644);
        header.set_cksum();
        Layer::plain(header.as_bytes().to_vec())
    };
    registry.image("bomb", vec![bomb], &[], ARCH);
    registry.image("plain", one("etc/os-release-not", file), &[], ARCH);
    registry.put(
        "junk/manifests/latest",
        "application/json",
        b"junk".to_vec(),
    );
    for (name, message) in [
        (
            "missing",
            "not found: the image or tag does not exist in the registry",
        ),
        ("up", "leaves the archive"),
        ("absolute", "leaves the archive"),
        ("device", "is a device"),
        (
            "other",
            "image architecture \"s390x\" does not match expected",
        ),
        ("lying", "the digest of its content is not sha256:"),
        ("bomb", "the uncompressed Docker image size"),
        ("junk", "failed to pull image"),
        ("UPPER", "invalid image reference"),
    ] {
        let failure = pull(&stand, address, name, Vec::new(), None)
            .await
            .unwrap_err();
        assert!(failure.message.contains(message), "{name}: {failure}");
        assert_eq!(failure.step.as_deref(), Some("base"), "{name}");
    }
    assert_eq!(stand.own_layers(), before);
    // Unpacks well, but is no system.
    let failure = pull(&stand, address, "plain", Vec::new(), None)
        .await
        .unwrap_err();
    assert!(
        failure
            .message
            .starts_with("error waiting for provisioning sandbox"),
        "{failure}"
    );
    tasks.stop(std::time::Duration::from_secs(5)).await;
    stand.stop().await;
}
