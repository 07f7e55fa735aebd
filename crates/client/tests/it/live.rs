//! The client against a real server, beyond what the examples show. All tests are ignored
//! unless asked for; the end-to-end run asks for them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use http::StatusCode;
use warren_client::{
    BuildOptions, Cell, Change, Client, Code, CodeContext, Command, Config, CopyOptions, Error,
    Event, EventQuery, FileEvent, ListQuery, LogLevel, LogQuery, NewSandbox, NewWebhook, Ready,
    Sandbox, SnapshotQuery, Template, Terminal, TerminalSize, Volume, VolumeEntryChange,
    VolumeEntryType, VolumeMount,
};

const LIFE: Duration = Duration::from_secs(120);
const NOBODY: &str = "inosuchsandbox0000000";

fn client() -> Client {
    Client::new(Config::from_env().unwrap()).unwrap()
}

fn new_sandbox(template: &str) -> NewSandbox {
    NewSandbox {
        template_id: template.to_owned(),
        timeout: Some(120),
        ..NewSandbox::default()
    }
}

async fn sandbox() -> Sandbox {
    client().create(&new_sandbox("base")).await.unwrap()
}

/// A name that no other run uses.
fn unique(what: &str) -> String {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{what}-{:x}", since.as_nanos())
}

fn refused<T: Debug>(result: Result<T, Error>) -> (StatusCode, String) {
    match result.unwrap_err() {
        Error::Refused {
            status, message, ..
        } => (status, message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a server"]
async fn what_is_not_there_is_told_by_status() {
    let client = client();
    let missing = refused(client.create(&new_sandbox("no-such-template")).await);
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    for error in [
        client.get(NOBODY).await.map(drop).unwrap_err(),
        client.connect(NOBODY, LIFE).await.map(drop).unwrap_err(),
        client.set_timeout(NOBODY, LIFE).await.unwrap_err(),
        client.pause(NOBODY, true).await.map(drop).unwrap_err(),
        client.fork(NOBODY, 1, LIFE).await.map(drop).unwrap_err(),
        client.snapshot(NOBODY, None).await.map(drop).unwrap_err(),
        client.volume("nosuch").await.map(drop).unwrap_err(),
        client
            .webhook_deliveries("nosuch")
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        match &error {
            Error::Refused { status, .. } => {
                assert!(matches!(status.as_u16(), 400 | 404), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(!client.kill(NOBODY).await.unwrap());
    assert!(!client.delete_template("no-such-template").await.unwrap());
    assert!(!client.template_exists("no-such-template").await.unwrap());
    assert!(client.template_exists("base").await.unwrap());
    assert_eq!(
        client.template_tags("no-such-template").await.unwrap(),
        None
    );
    let wrong = Config {
        api_key: format!("e2b_{}", "0".repeat(40)),
        ..Config::from_env().unwrap()
    };
    let stranger = Client::new(wrong).unwrap();
    let answer = refused(stranger.list(&ListQuery::default()).await);
    assert_eq!(answer.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
#[ignore = "needs a server"]
async fn lists_come_in_pages_and_by_filter() {
    let client = client();
    let label = BTreeMap::from([("a b".to_owned(), unique("c&d"))]);
    let new = NewSandbox {
        metadata: Some(label.clone()),
        ..new_sandbox("base")
    };
    let made = [
        client.create(&new).await.unwrap(),
        client.create(&new).await.unwrap(),
    ];
    let mut query = ListQuery {
        metadata: label,
        oldest_first: true,
        limit: Some(1),
        ..ListQuery::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = client.list(&query).await.unwrap();
        assert!(page.sandboxes.len() <= 1);
        seen.extend(page.sandboxes.into_iter().map(|one| one.sandbox_id));
        query.next_token = page.next_token;
        if query.next_token.is_none() {
            break;
        }
    }
    assert_eq!(seen, made.each_ref().map(|one| one.id().to_owned()));
    for one in &made {
        one.kill().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a server"]
async fn a_large_output_and_binary_input_arrive_whole() {
    let sandbox = sandbox().await;
    let commands = sandbox.commands();
    let output = commands.run("head -c 20000000 /dev/zero").await.unwrap();
    assert_eq!(output.stdout.len(), 20_000_000);
    let error = commands
        .run("head -c 70000000 /dev/zero")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error:?}");

    let mut cat = commands.start(Command::new("cat").stdin()).await.unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for piece in bytes.chunks(50_000) {
        cat.send_stdin(piece.to_vec()).await.unwrap();
    }
    cat.close_stdin().await.unwrap();
    let mut back = Vec::new();
    while let Some(event) = cat.next().await.unwrap() {
        if let Event::Stdout(bytes) = event {
            back.extend_from_slice(&bytes);
        }
    }
    assert_eq!(back, bytes);
    let gone = commands.send_stdin(cat.pid(), "x").await.unwrap_err();
    assert!(gone.is_not_found(), "{gone:?}");
    assert!(!commands.kill(cat.pid()).await.unwrap());

    let stranger = Command::new("true").user("nobody-of-this-name");
    match commands.run(stranger).await.unwrap_err() {
        Error::Agent { source, .. } => assert_eq!(source.code, Code::Unauthenticated),
        other => panic!("{other:?}"),
    }
    sandbox.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a server"]
async fn a_terminal_outlives_its_follower_and_is_killed_by_id() {
    let sandbox = sandbox().await;
    let commands = sandbox.commands();
    let size = TerminalSize {
        columns: 77,
        rows: 11,
    };
    let line = Terminal::new(size)
        .line("trap 'echo \"to $(stty size)\"' WINCH; echo up; while :; do sleep 0.05; done")
        .user(Some("root".to_owned()))
        .cwd(Some("/tmp".to_owned()));
    let mut first = commands.start_terminal(line).await.unwrap();
    let pid = first.pid();
    // It listens for sizes by then.
    let mut shown = String::new();
    while !shown.contains("up") {
        match first.next().await.unwrap() {
            Some(Event::Stdout(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    drop(first);
    let mut second = commands.connect(pid).await.unwrap();
    second
        .resize(TerminalSize {
            columns: 99,
            rows: 22,
        })
        .await
        .unwrap();
    let mut shown = String::new();
    while !shown.contains("to 22 99") {
        match second.next().await.unwrap() {
            Some(Event::Stdout(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    assert!(second.kill().await.unwrap());
    let exit = second.wait().await.unwrap();
    assert_eq!(
        (exit.code, exit.error.as_deref()),
        (-1, Some("signal: killed"))
    );
    sandbox.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a server"]
async fn every_change_below_a_watched_directory_is_told() {
    let sandbox = sandbox().await;
    let files = sandbox.files();
    files.make_dir("/tmp/w/below").await.unwrap();
    let mut watch = files.watch("/tmp/w", true).await.unwrap();
    let line = "cd /tmp/w; echo 1 > below/a; chmod 600 below/a; mv below/a b; rm b";
    sandbox.commands().run(line).await.unwrap();
    let mut told = Vec::new();
    loop {
        let FileEvent { name, change } = watch.next().await.unwrap().unwrap();
        told.push((name.clone(), change));
        if (name.as_str(), change) == ("b", Change::Removed) {
            break;
        }
    }
    for (name, change) in [
        ("below/a", Change::Created),
        ("below/a", Change::Written),
        ("below/a", Change::Attributes),
        ("below/a", Change::Renamed),
        ("b", Change::Created),
    ] {
        let wanted = (name.to_owned(), change);
        assert!(told.contains(&wanted), "{wanted:?} in {told:?}");
    }

    let mut shallow = files.watch("/tmp/w", false).await.unwrap();
    files.write("/tmp/w/below/unseen", "x").await.unwrap();
    files.write("/tmp/w/seen", "x").await.unwrap();
    let event = shallow.next().await.unwrap().unwrap();
    assert_eq!(
        (event.name.as_str(), event.change),
        ("seen", Change::Created)
    );

    let missing = files.watch("/tmp/missing", false).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing:?}");
    let killed = sandbox.kill().await.unwrap();
    assert!(killed);
    // The stream ends with the sandbox, whichever way.
    while let Ok(Some(_)) = watch.next().await {}
}

#[tokio::test]
#[ignore = "needs a server"]
async fn links_need_no_credential_and_end() {
    let sandbox = sandbox().await;
    sandbox.files().write("/tmp/a b", "signed").await.unwrap();
    // The domain of a test's server is not resolved: the path is asked of its address, with
    // the name of the sandbox in headers.
    let url = Config::from_env().unwrap().sandbox_url;
    let http = reqwest::Client::new();
    let ask = |link: reqwest::Url| {
        let url = format!("{url}{}?{}", link.path(), link.query().unwrap());
        http.get(url)
            .header("e2b-sandbox-id", sandbox.id())
            .header("e2b-sandbox-port", "49983")
            .send()
    };
    let link = sandbox.download_url("/tmp/a b", None, Some(LIFE)).unwrap();
    assert!(link.as_str().contains(sandbox.id()), "{link}");
    let answer = ask(link).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.text().await.unwrap(), "signed");
    let mut other = sandbox.download_url("/tmp/a b", None, None).unwrap();
    let query = other.query().unwrap().replace("a+b", "c");
    other.set_query(Some(&query));
    assert_eq!(ask(other).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let upload = sandbox.upload_url("/tmp/a b", None, None).unwrap();
    assert_eq!(
        ask(upload).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    sandbox.kill().await.unwrap();
}

async fn with_volume() -> (Client, Volume) {
    let client = client();
    let volume = client.create_volume(&unique("rust")).await.unwrap();
    (client, volume)
}

#[tokio::test]
#[ignore = "needs a server"]
async fn a_volume_is_used_from_outside_and_inside() {
    let (client, volume) = with_volume().await;
    let taken = refused(client.create_volume(volume.name()).await);
    assert!(matches!(taken.0.as_u16(), 400 | 409), "{taken:?}");
    let listed = client.volumes().await.unwrap();
    assert!(listed.iter().any(|one| one.volume_id == volume.id()));
    let same = client.volume(volume.id()).await.unwrap();
    assert_eq!(same.name(), volume.name());
    assert!(!format!("{same:?}").contains("token"));

    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let written = volume.write("/a/b/bytes", bytes.clone()).await.unwrap();
    assert_eq!(written.size, 3_000_000);
    volume.write("/a/b/other", "beside it").await.unwrap();
    let mut download = volume.download("/a/b/bytes").await.unwrap();
    let mut back = Vec::new();
    while let Some(piece) = download.next().await.unwrap() {
        back.extend_from_slice(&piece);
    }
    assert_eq!(back, bytes);
    volume.make_dir("/a/c").await.unwrap();
    let entries = volume.list("/a", 1).await.unwrap();
    let kinds: Vec<(&str, VolumeEntryType)> = entries
        .iter()
        .map(|entry| (entry.name.as_str(), entry.kind))
        .collect();
    assert_eq!(
        kinds,
        [
            ("b", VolumeEntryType::Directory),
            ("c", VolumeEntryType::Directory)
        ]
    );
    let change = VolumeEntryChange {
        uid: Some(1000),
        mode: Some(0o640),
        ..VolumeEntryChange::default()
    };
    let changed = volume.set_attributes("/a/b/bytes", &change).await.unwrap();
    assert_eq!((changed.uid, changed.mode & 0o777), (1000, 0o640));

    let mount = |read_only| VolumeMount {
        name: volume.name().to_owned(),
        path: "/vol".to_owned(),
        read_only,
    };
    let of = |read_only| NewSandbox {
        volume_mounts: Some(vec![mount(read_only)]),
        ..new_sandbox("base")
    };
    let sandbox = client.create(&of(true)).await.unwrap();
    let line = "stat -c '%U %a %s' /vol/a/b/bytes; touch /vol/x || echo refused";
    let seen = sandbox.commands().run(line).await.unwrap();
    assert_eq!(seen.stdout_text(), "user 640 3000000\nrefused\n");
    sandbox.kill().await.unwrap();

    assert!(volume.remove("/a").await.unwrap());
    assert!(!volume.remove("/a").await.unwrap());
    assert_eq!(
        refused(volume.read("/a/b/bytes").await).0,
        StatusCode::NOT_FOUND
    );
    assert!(client.delete_volume(volume.id()).await.unwrap());
    assert!(!client.delete_volume(volume.id()).await.unwrap());
}

#[tokio::test]
#[ignore = "needs a server"]
async fn events_are_listed_by_kind_and_part() {
    let client = client();
    let sandbox = sandbox().await;
    sandbox.pause().await.unwrap();
    assert!(!sandbox.pause().await.unwrap(), "it is paused already");
    let sandbox = sandbox.resume(LIFE).await.unwrap();
    sandbox.kill().await.unwrap();
    let all = EventQuery {
        sandbox_id: Some(sandbox.id().to_owned()),
        limit: Some(100),
        ..EventQuery::default()
    };
    let newest_first = client.events(&all).await.unwrap();
    let oldest_first = EventQuery {
        oldest_first: true,
        ..all.clone()
    };
    let mut other = client.events(&oldest_first).await.unwrap();
    other.reverse();
    assert_eq!(newest_first, other);
    for kind in ["created", "paused", "resumed", "killed"] {
        let kind = format!("sandbox.lifecycle.{kind}");
        let one = EventQuery {
            kinds: vec![kind.clone()],
            ..all.clone()
        };
        let events = client.events(&one).await.unwrap();
        assert_eq!(events.len(), 1, "{kind}: {events:?}");
        assert_eq!(events[0].kind, kind);
    }
    let rest = EventQuery {
        offset: 1,
        ..all.clone()
    };
    assert_eq!(client.events(&rest).await.unwrap(), newest_first[1..]);
    let bad = EventQuery {
        kinds: vec!["no.such.kind".to_owned()],
        ..all
    };
    assert_eq!(
        refused(client.events(&bad).await).0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
#[ignore = "needs a server"]
async fn webhooks_come_and_go() {
    let client = client();
    let new = NewWebhook {
        name: unique("hook"),
        url: "https://receiver.example.com/events".to_owned(),
        enabled: Some(false),
        events: vec!["sandbox.lifecycle.killed".to_owned()],
        signature_secret: None,
    };
    let hook = client.create_webhook(&new).await.unwrap();
    assert!(hook.signature_secret.is_some(), "one is made for it");
    let listed = client.webhooks().await.unwrap();
    let found = listed.iter().find(|one| one.id == hook.id).unwrap();
    assert_eq!(
        (found.name.as_str(), &found.signature_secret),
        (new.name.as_str(), &None)
    );
    assert!(
        client
            .webhook_deliveries(&hook.id)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(client.delete_webhook(&hook.id).await.unwrap());
    assert!(!client.delete_webhook(&hook.id).await.unwrap());
}

#[tokio::test]
#[ignore = "needs a server"]
async fn logs_are_filtered_by_level_and_moment() {
    let client = client();
    let sandbox = sandbox().await;
    sandbox.commands().run("echo 1").await.unwrap();
    let everything = LogQuery {
        from: Some(jiff::Timestamp::UNIX_EPOCH),
        min_level: Some(LogLevel::Debug),
    };
    let all = loop {
        let all = client.logs(sandbox.id(), &everything).await.unwrap();
        if all.iter().any(|line| line.message.contains("ended")) {
            break all;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(all.is_sorted_by_key(|line| line.timestamp));
    let errors = LogQuery {
        min_level: Some(LogLevel::Error),
        ..everything.clone()
    };
    let errors = client.logs(sandbox.id(), &errors).await.unwrap();
    assert!(errors.iter().all(|line| line.level == LogLevel::Error));
    assert!(errors.len() < all.len());
    let last = all.last().unwrap().timestamp;
    let later = LogQuery {
        from: Some(last + Duration::from_secs(60)),
        ..everything
    };
    assert_eq!(client.logs(sandbox.id(), &later).await.unwrap(), []);
    sandbox.kill().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a server"]
async fn a_fork_and_a_snapshot_have_names_and_limits() {
    let client = client();
    let sandbox = sandbox().await;
    assert_eq!(
        refused(sandbox.fork(0, LIFE).await).0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        refused(sandbox.fork(101, LIFE).await).0,
        StatusCode::BAD_REQUEST
    );
    let name = unique("snap");
    let snapshot = sandbox.snapshot(Some(&name)).await.unwrap();
    assert!(snapshot.names[0].ends_with(&name), "{snapshot:?}");
    let by_name = SnapshotQuery {
        name: Some(name.clone()),
        ..SnapshotQuery::default()
    };
    let (found, next) = client.snapshots(&by_name).await.unwrap();
    assert_eq!((found.len(), next), (1, None));
    sandbox.pause().await.unwrap();
    assert_eq!(refused(sandbox.fork(1, LIFE).await).0, StatusCode::CONFLICT);
    sandbox.kill().await.unwrap();
    assert!(client.delete_template(&snapshot.snapshot_id).await.unwrap());
    assert_eq!(client.snapshots(&by_name).await.unwrap().0, []);
}

#[tokio::test]
#[ignore = "needs a server"]
async fn a_build_is_started_followed_and_fails_in_words() {
    let client = client();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("run.sh"),
        "#!/bin/sh\necho ran > /tmp/ran\n",
    )
    .unwrap();
    let name = unique("built");
    let template = Template::from_template("base")
        .context(dir.path())
        .copy(
            "run.sh",
            "/opt/run.sh",
            CopyOptions {
                owner: Some("root:root".to_owned()),
                mode: Some(0o755),
                force_upload: true,
            },
        )
        .make_dirs(["/home/user/a b"])
        .symlink("/opt/run.sh", "/home/user/link")
        .rename("/home/user/link", "/home/user/a b/link")
        .run_as("root", "echo root-made > /opt/made")
        .remove(["/home/user/nothing"])
        .user("root")
        .start("/opt/run.sh; sleep 600", Ready::file("/tmp/ran"));
    let build = client
        .start_build(&template, &BuildOptions::new(&name))
        .await
        .unwrap();
    let mut lines = 0;
    client.follow_build(&build, |_| lines += 1).await.unwrap();
    assert!(lines > 0);
    let status = client.build_status(&build, 0).await.unwrap();
    assert_eq!(status.status, "ready");
    assert!(!status.log_entries.is_empty());
    let sandbox = client.create(&new_sandbox(&name)).await.unwrap();
    let line = "readlink '/home/user/a b/link'; stat -c '%U %a' /opt/run.sh; cat /tmp/ran; id -un";
    let seen = sandbox.commands().run(line).await.unwrap();
    assert_eq!(seen.stdout_text(), "/opt/run.sh\nroot 755\nran\nroot\n");
    sandbox.kill().await.unwrap();
    let listed = client.templates(None).await.unwrap();
    assert!(
        listed
            .iter()
            .any(|one| one.template_id == build.template_id)
    );
    client.publish_template(&name, true).await.unwrap();
    client.publish_template(&name, false).await.unwrap();

    let failing = Template::from_template(&name).run("exit 7");
    let failed = client
        .build(&failing, &BuildOptions::new(&name), |_| {})
        .await;
    match failed.unwrap_err() {
        Error::Build { step, message } => {
            assert!(step.is_some());
            assert!(message.contains("exit status 7"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let missing = Template::from_template("base").copy("nothing", "/", CopyOptions::default());
    let refused = client
        .build(
            &missing.context(dir.path()),
            &BuildOptions::new(&name),
            |_| {},
        )
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::NoFiles { .. }), "{refused:?}");
    assert!(client.delete_template(&build.template_id).await.unwrap());
}

#[tokio::test]
#[ignore = "needs a server"]
async fn cells_have_limits_and_contexts_errors() {
    let sandbox = client()
        .create(&new_sandbox("code-interpreter-v1"))
        .await
        .unwrap();
    let interpreter = sandbox.interpreter();
    let defaults: Vec<String> = interpreter
        .contexts()
        .await
        .unwrap()
        .into_iter()
        .map(|context| context.language)
        .collect();
    assert!(defaults.contains(&"python".to_owned()), "{defaults:?}");
    let slow = Cell::new("import time; time.sleep(60)").timeout(Some(Duration::from_millis(500)));
    let error = interpreter.run(slow).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    // The cell was interrupted with its client, so the next one runs.
    let next = interpreter.run("6 * 7").await.unwrap();
    assert_eq!(next.text(), Some("42"));
    let with = Cell::new("import os; os.environ['ONLY']").env("ONLY", "it's\n\"here\"");
    let seen = interpreter.run(with).await.unwrap();
    assert!(seen.error.is_none(), "{seen:?}");
    let gone = interpreter.run("os.environ['ONLY']").await.unwrap();
    assert_eq!(gone.error.unwrap().name, "KeyError");
    let nowhere = CodeContext {
        id: "nosuch".to_owned(),
        language: "python".to_owned(),
        cwd: "/".to_owned(),
    };
    let missing = interpreter.run(Cell::new("1").context(&nowhere)).await;
    assert_eq!(refused(missing).0, StatusCode::NOT_FOUND);
    assert_eq!(
        refused(interpreter.remove_context("nosuch").await).0,
        StatusCode::NOT_FOUND
    );
    let unknown = interpreter.run(Cell::new("1").language("cobol")).await;
    assert_eq!(refused(unknown).0, StatusCode::INTERNAL_SERVER_ERROR);
    let counted = interpreter.run("1").await.unwrap();
    assert!(counted.count > 1, "{counted:?}");
    sandbox.kill().await.unwrap();
}
