//! Steps in real sandboxes.

use crate::support::{Stand, request, step};

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_in_order_with_their_context_and_are_cached() {
    let stand = Stand::start().await;
    let steps = vec![
        step("RUN", &["id -un; pwd; sudo -n id -u; echo hello > made"]),
        step(
            "ENV",
            &[
                "A",
                "1 \"q\" \\ `x` $(y)",
                "B",
                "${A}/b",
                "PATH",
                "${PATH}:/my/path",
            ],
        ),
        step(
            "RUN",
            &["cat made; echo \"B=$B\"; case $PATH in *:/my/path) echo path;; esac"],
        ),
        step("WORKDIR", &["sub/deep"]),
        step(
            "RUN",
            &["pwd; stat -c %U . ..; sudo rm /etc/issue; rm ~/made"],
        ),
        step("USER", &["bob"]),
        step("RUN", &["id -un; ls /etc/issue ~user/made 2>&1 | wc -l"]),
        step("RUN", &["id -un", "root"]),
    ];
    let built = stand.build(request(steps.clone())).await;
    let said = stand.said();
    let built = built.unwrap_or_else(|error| panic!("{error:?}: {said:#?}"));
    for line in [
        "[builder 1/8] [stdout]: user",
        "[builder 1/8] [stdout]: /home/user",
        "[builder 1/8] [stdout]: 0",
        "[builder 3/8] [stdout]: hello",
        "[builder 3/8] [stdout]: B=1 \"q\" \\ `x` $(y)/b",
        "[builder 3/8] [stdout]: path",
        "[builder 5/8] [stdout]: /sub/deep",
        "[builder 5/8] [stdout]: user",
        "[builder 7/8] [stdout]: bob",
        "[builder 8/8] [stdout]: root",
    ] {
        assert!(said.iter().any(|said| said == line), "{line}: {said:#?}");
    }
    assert_eq!(built.image.default_user, "bob");
    assert_eq!(built.image.default_workdir.as_deref(), Some("/sub/deep"));

    let start = std::time::Instant::now();
    stand.build(request(steps)).await.unwrap();
    println!("cached: {:?}", start.elapsed());
    for number in 1..=8 {
        assert!(
            stand.heard(&format!("CACHED [builder {number}/8]")),
            "{:#?}",
            stand.said()
        );
    }
    stand.stop().await;
}

/// A gzip archive of a small tree, as clients upload it.
fn archive(stand: &Stand) -> std::path::PathBuf {
    let tree = stand.path().join("tree");
    std::fs::create_dir_all(tree.join("dir/sub")).unwrap();
    std::fs::write(tree.join("dir/run.sh"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::write(tree.join("dir/sub/.dot"), "dot").unwrap();
    std::fs::write(tree.join("file.txt"), "text").unwrap();
    std::os::unix::fs::symlink("/nowhere", tree.join("dir/dangling")).unwrap();
    let path = stand.path().join("archive");
    let packed = std::process::Command::new("tar")
        .args([
            "-czf",
            path.to_str().unwrap(),
            "-C",
            tree.to_str().unwrap(),
            "dir",
            "file.txt",
        ])
        .status()
        .unwrap();
    assert!(packed.success());
    path
}

fn copy(args: &[&str]) -> warren_template::build::Step {
    warren_template::build::Step {
        files_hash: Some("hash".to_owned()),
        ..step("COPY", args)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_placed_as_told() {
    let stand = Stand::start().await;
    let check = "set -e; cd ~; cat f.txt; stat -c '%U %a' into/file.txt; ls -A merged/sub; \
         readlink merged/dangling; cat merged/kept; stat -c %a merged/run.sh; \
         cat via-link/run.sh >/dev/null; test -L merged/link-to-dir; cat real/x/.dot; \
         cat link-to-file; test -f target; test ! -L link-to-file; stat -c %U:%G owned/run.sh";
    let steps = vec![
        step(
            "RUN",
            &[
                "mkdir -p merged/sub into real/x via; ln -s ../real merged/link-to-dir; \
             echo kept > merged/kept; echo old > target; ln -s target link-to-file; \
             ln -s via via-link; mkdir -p merged/link-to-dir",
            ],
        ),
        copy(&["file.txt", "f.txt"]),
        copy(&["file.txt", "into", "root", "0600"]),
        copy(&["dir", "merged", "", "0755"]),
        copy(&["dir/*", "/home/user/via-link/"]),
        copy(&["dir/sub", "merged/link-to-dir/x"]),
        copy(&["file.txt", "link-to-file"]),
        copy(&["./dir", "owned", "root:user"]),
        step("RUN", &[check, "root"]),
    ];
    let mut request = request(steps.clone());
    request.files.insert("hash".to_owned(), archive(&stand));
    let result = stand.build(request.clone()).await;
    let said = stand.said();
    assert!(result.is_err(), "cd ~ of root is another home");
    request.steps[8] = step("RUN", &[&check.replace("cd ~", "cd /home/user"), "root"]);
    let result = stand.build(request.clone()).await;
    assert!(result.is_ok(), "{result:?} {said:#?} {:#?}", stand.said());
    let output: Vec<String> = stand
        .said()
        .iter()
        .filter_map(|line| Some(line.strip_prefix("[builder 9/9] [stdout]: ")?.to_owned()))
        .collect();
    let expected = [
        "textroot 600",
        ".dot",
        "/nowhere",
        "kept",
        "755",
        "dottextroot:user",
    ];
    assert_eq!(output, expected);

    // Unknown archives and entries fail their step.
    request.steps = vec![copy(&["missing", "/x"])];
    let failure = stand.build(request.clone()).await.unwrap_err();
    assert_eq!(
        failure.message,
        "failed to move files in sandbox: exit status 1"
    );
    assert_eq!(failure.step.as_deref(), Some("1"));
    request.files.clear();
    let failure = stand.build(request).await.unwrap_err();
    assert!(
        failure
            .message
            .starts_with("failed to open files object from storage")
    );
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_in_the_words_users_know() {
    let stand = Stand::start().await;
    for (bad, message) in [
        (
            step("RUN", &["exit 7"]),
            "failed to run command 'exit 7': exit status 7",
        ),
        (
            step("RUN", &["whoami", "root123"]),
            "failed to run command 'whoami': command failed: \
             unauthenticated: invalid username: 'root123'",
        ),
        (
            step("WORKDIR", &["/root/.bashrc"]),
            "failed to create workdir: exit status 1",
        ),
        (
            step("USER", &["; exit 1"]),
            "failed to create user: exit status 3",
        ),
        (
            step("VOLUME", &["x"]),
            "failed to get command for step VOLUME: command type VOLUME is not implemented",
        ),
        (
            step("RUN", &["mkdir -p .bashrc"]),
            "failed to run command 'mkdir -p .bashrc': exit status 1",
        ),
    ] {
        let failure = stand
            .build(request(vec![step("RUN", &["true"]), bad]))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.message.as_str(), failure.step.as_deref()),
            (message, Some("2"))
        );
    }
    let mut bad = request(vec![]);
    bad.source = warren_template::build::Source::Image {
        reference: "python:3.12".to_owned(),
        credentials: None,
    };
    let failure = stand.build(bad).await.unwrap_err();
    assert_eq!(failure.step.as_deref(), Some("base"));
    assert!(
        failure
            .message
            .starts_with("image 'python:3.12' not found: "),
        "{failure}"
    );
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_commands_run_until_ready() {
    let stand = Stand::start().await;
    let mut good = request(vec![step("ENV", &["PORT", "8000"])]);
    good.start_cmd = Some("echo serving $PORT; touch /tmp/up; sleep 600".to_owned());
    good.ready_cmd = Some("[ -f /tmp/up ]".to_owned());
    let built = stand.build(good.clone()).await.unwrap();
    let said = stand.said();
    let at = |text: &str| {
        let found = said.iter().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("{text}: {said:#?}"))
    };
    assert!(at("Running start command: echo") < at("Waiting for template to be ready: ["));
    assert!(at("Waiting for template") < at("Template is ready"));
    assert!(at("[start] [stdout]: serving 8000") < at("Template is ready"));
    let start = built.image.start.clone().unwrap();
    assert_eq!(start.env["PORT"], "8000");

    // A child inherits the pair with its context, and may replace it.
    let mut child = request(vec![step("ENV", &["PORT", "9000"])]);
    child.source = warren_template::build::Source::Template {
        name: "parent".to_owned(),
        image: Box::new(built.image.clone()),
    };
    let inherited = stand.build(child.clone()).await.unwrap();
    assert!(stand.heard("CACHED [base] FROM TEMPLATE parent"));
    assert_eq!(inherited.image.start, built.image.start);
    child.ready_cmd = Some("true".to_owned());
    let replaced = stand.build(child).await.unwrap().image.start.unwrap();
    assert_eq!(
        (replaced.command, replaced.env["PORT"].as_str()),
        (None, "9000")
    );

    good.start_cmd = Some("exit 3".to_owned());
    good.ready_cmd = Some("false".to_owned());
    let failure = stand.build(good).await.unwrap_err();
    assert_eq!(
        failure.message,
        "start command failed: error running start command: exit status 3"
    );
    assert_eq!(failure.step.as_deref(), Some("finalize"));
    stand.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_steps_make_few_layers() {
    let stand = Stand::start().await;
    let mut steps: Vec<_> = (0..40)
        .map(|n| {
            let before = n - 1;
            let line =
                format!("echo {n} > n{n}; rm -f n{before}; mkdir -p d{n}; echo {n} > d/last");
            step("RUN", &[&line.replace("d/last", "last")])
        })
        .collect();
    steps.push(step(
        "RUN",
        &["ls -d n* d* | wc -l; cat last n39; ls n38 2>&1 | wc -l"],
    ));
    let built = stand.build(request(steps)).await;
    let said = stand.said();
    let built = built.unwrap_or_else(|error| panic!("{error:?} {said:#?}"));
    assert!(
        built.image.layers.len() <= 28,
        "{}",
        built.image.layers.len()
    );
    let output: Vec<_> = said
        .iter()
        .filter_map(|line| line.strip_prefix("[builder 41/41] [stdout]: "))
        .collect();
    assert_eq!(output, ["41", "39", "39", "1"]);
    stand.stop().await;
}
