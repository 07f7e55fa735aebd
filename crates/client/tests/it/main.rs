//! The client against a server that answers as the contract says, and, on request, a real one.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod examples;
mod live;
mod server;

use std::time::Duration;

use http::StatusCode;
use server::FakeServer;
use warren_client::{Client, Code, Command, Config, Error, Event, NewSandbox, Sandbox};

async fn client() -> Client {
    let url = FakeServer::start().await;
    Client::new(Config::new(url, "e2b_key")).unwrap()
}

async fn sandbox() -> Sandbox {
    let new = NewSandbox {
        template_id: "base".to_owned(),
        ..NewSandbox::default()
    };
    client().await.create(&new).await.unwrap()
}

#[tokio::test]
async fn a_created_sandbox_has_its_id_and_host_and_hides_its_token() {
    let sandbox = sandbox().await;
    assert_eq!(sandbox.id(), "isandbox1");
    assert_eq!(
        sandbox.host(80).as_deref(),
        Some("80-isandbox1.warren.example")
    );
    assert!(!format!("{sandbox:?}").contains("token"));
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_the_servers_message() {
    let url = FakeServer::start().await;
    let client = Client::new(Config::new(url, "wrong")).unwrap();
    let error = client.create(&NewSandbox::default()).await.unwrap_err();
    match error {
        Error::Refused {
            status, message, ..
        } => {
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            assert_eq!(message, "bad key");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn killing_what_is_gone_is_no_error() {
    let client = client().await;
    assert!(client.kill("isandbox1").await.unwrap());
    assert!(!client.kill("gone").await.unwrap());
}

#[tokio::test]
async fn a_commands_output_arrives_in_pieces_and_ends_with_its_exit() {
    let sandbox = sandbox().await;
    let command = Command::new("talk").user("root").timeout(None);
    let mut process = sandbox.commands().start(command).await.unwrap();
    assert_eq!(process.pid(), 7);
    let mut events = Vec::new();
    while let Some(event) = process.next().await.unwrap() {
        events.push(event);
    }
    assert_eq!(events.len(), 3);
    assert_eq!(events[0], Event::Stdout("out".into()));
    assert_eq!(events[1], Event::Stderr("err".into()));
    assert!(matches!(&events[2], Event::Exit(exit) if exit.code == 3));

    let output = sandbox
        .commands()
        .run(Command::new("talk").user("root").timeout(None))
        .await
        .unwrap();
    assert_eq!((output.stdout_text(), output.exit.code), ("out".into(), 3));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_success() {
    let sandbox = sandbox().await;
    let error = sandbox.commands().run("break").await.unwrap_err();
    assert!(
        matches!(error, Error::Cut { .. } | Error::Transport { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_agents_error_ends_a_stream_with_its_code() {
    let sandbox = sandbox().await;
    let late = Command::new("late").timeout(Some(Duration::from_millis(1500)));
    match sandbox.commands().run(late).await.unwrap_err() {
        Error::Agent { source, .. } => assert_eq!(source.code, Code::DeadlineExceeded),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn files_are_written_and_read_as_bytes() {
    let files = sandbox().await.files();
    files.write("a b/ü", vec![0, 159, 146]).await.unwrap();
    assert_eq!(files.read("a b/ü").await.unwrap(), vec![0, 159, 146]);
    let error = files.read("missing").await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(!files.exists("missing").await.unwrap());
    assert!(!files.make_dir("there").await.unwrap());
}
