//! Templates as images on disk, and what is removed of them.

use std::collections::HashSet;
use std::fs;
use std::io::copy;
use std::process::Command;

use warren_template::build::{Builder, Collected, Source};

use crate::support::{Stand, request, step};

fn from(reference: &str, check: &str) -> warren_template::build::BuildRequest {
    let mut request = request(vec![step("RUN", &[check])]);
    request.source = Source::Image {
        reference: reference.to_owned(),
        credentials: None,
    };
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_exported_and_comes_back() {
    let stand = Stand::start().await;
    let steps = vec![
        step("ENV", &["GREETING", "hello"]),
        step(
            "RUN",
            &["echo kept > ~/kept; rm -f ~/.profile; mkdir ~/d; ln ~/kept ~/d/too"],
        ),
    ];
    let mut small = from("debian:stable", "true");
    small.steps = steps;
    let built = stand.build(small).await.unwrap();
    let mut exported = stand.engine().export(&built.image, "v1").await.unwrap();
    let images = stand.path().join("images");
    fs::create_dir(&images).unwrap();
    let archive = images.join("mine.tar");
    copy(&mut exported, &mut fs::File::create(&archive).unwrap()).unwrap();

    // A tool that knows the format reads every byte of it, and makes a directory of it.
    let layout = images.join("as-directory");
    let copied = Command::new("skopeo")
        .arg("copy")
        .arg(format!("oci-archive:{}:v1", archive.display()))
        .arg(format!("oci:{}:v1", layout.display()))
        .output();
    let mut names = vec!["oci:mine", "oci:mine:v1"];
    // Not every developer's machine has it.
    if let Ok(copied) = copied {
        assert!(copied.status.success(), "{copied:?}");
        names.push("oci:as-directory:v1");
    }
    let check = "cat ~/kept ~/d/too; echo $GREETING; ls ~/.profile 2>&1 | wc -l; id -un";
    for name in names {
        let result = stand.build(from(name, check)).await;
        let said = stand.said();
        result.unwrap_or_else(|error| panic!("{name}: {error} {said:#?}"));
        let output: Vec<_> = said
            .iter()
            .filter_map(|line| line.strip_prefix("[builder 1/1] [stdout]: "))
            .collect();
        if !stand.heard("CACHED [builder 1/1]") {
            assert_eq!(output, ["kept", "kept", "hello", "1", "user"], "{name}");
        }
    }
    for (name, told) in [
        ("oci:other", "it is not among the server's images"),
        ("oci:../images/mine", "invalid image reference"),
        ("oci:/etc", "invalid image reference"),
        ("oci:.hidden", "invalid image reference"),
        ("oci:mine:v2", "the image or tag does not exist"),
        (&format!("oci:{}", "a".repeat(64)), "nothing was uploaded"),
    ] {
        let failure = stand.build(from(name, "true")).await.unwrap_err();
        assert!(failure.message.contains(told), "{name}: {failure}");
        assert_eq!(failure.step.as_deref(), Some("base"));
    }
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_nothing_names_are_removed() {
    let stand = Stand::start().await;
    let one = stand.build(request(vec![step("RUN", &["echo 1 > ~/one"])]));
    let one = one.await.unwrap().image;
    let other = stand.build(request(vec![step("RUN", &["echo 2 > ~/two"])]));
    let other = other.await.unwrap().image;
    let before = stand.own_layers();
    let in_use: HashSet<String> = one.layers.iter().cloned().collect();

    // Records of the cache name them all.
    let removed = stand.engine().collect(in_use.clone()).await.unwrap();
    assert_eq!(removed, Some(Collected::default()));
    assert_eq!(stand.own_layers(), before);

    // Without the records, what a template or a sandbox has stays.
    let records = stand.path().join("builds/cache");
    for scope in fs::read_dir(&records).unwrap() {
        fs::remove_dir_all(scope.unwrap().path()).unwrap();
    }
    let sandbox = stand.sandbox_of(&other).await;
    let removed = stand.engine().collect(in_use.clone()).await.unwrap();
    assert_eq!(
        removed,
        Some(Collected::default()),
        "a sandbox runs on the rest"
    );
    stand.end(sandbox).await;
    let removed = stand
        .engine()
        .collect(in_use.clone())
        .await
        .unwrap()
        .unwrap();
    assert!(removed.layers > 0, "{removed:?}");
    let left: HashSet<String> = stand.own_layers().into_iter().collect();
    let kept = before.iter().filter(|layer| in_use.contains(*layer));
    assert_eq!(left, kept.cloned().collect());
    assert!(
        !other
            .layers
            .iter()
            .all(|layer| left.contains(layer) || is_shared(&stand, layer))
    );

    // What is gone is made again.
    let again = stand.build(request(vec![step("RUN", &["echo 2 > ~/two"])]));
    again.await.unwrap();
    assert!(!stand.heard("CACHED [builder"));
    stand.stop().await;
}

fn is_shared(stand: &Stand, layer: &str) -> bool {
    stand.shared().get(layer).unwrap().is_some()
}
