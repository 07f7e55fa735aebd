use std::time::Duration;

use http::Response;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use warren_proxy::Resolution;

use crate::support::{World, echo, full};

const FIREFOX: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11; Linux) Gecko Firefox/140.0");
const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", "https://page.example"),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "x-custom"),
];

#[tokio::test]
async fn an_unknown_sandbox_is_not_found() {
    let world = World::start().await;
    let answer = world
        .get("3000-inone.d", "/", &[("user-agent", "curl/8")])
        .await;
    answer.expect(
        502,
        r#"{"sandboxId":"inone","message":"The sandbox was not found","code":502}"#,
    );
    assert_eq!(
        answer.headers["content-type"],
        "application/json; charset=utf-8"
    );
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    let page = world
        .get("3000-inone.d", "/", &[FIREFOX, ("accept", "text/html")])
        .await;
    page.contains(502, "Sandbox Not Found");
    page.contains(502, "inone");
    assert!(page.text.starts_with("<html") && page.text.ends_with("</html>"));
    let script = world
        .get("3000-inone.d", "/", &[FIREFOX, ("sec-fetch-mode", "cors")])
        .await;
    assert_eq!(
        script.headers["content-type"],
        "application/json; charset=utf-8"
    );
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let world = World::start().await;
    let _run = world.run("iabc");
    world.get("3210-iabc.d", "/", &[]).await.expect(
        502,
        r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":3210,"code":502}"#,
    );
    let page = world.get("3210-iabc.d", "/", &[FIREFOX]).await;
    for part in ["no service running on port", "3210", "iabc", "3210-iabc.d"] {
        page.contains(502, part);
    }
}

#[tokio::test]
async fn a_service_that_starts_late_is_reached() {
    let world = World::start().await;
    let run = world.run("iabc");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    run.ports.open(3000, address);
    let asked = Notify::new();
    let late_start = async {
        asked.notified().await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let listener = TcpListener::bind(address).await.unwrap();
        world.raw_guest_on(listener, |mut stream| async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
                .await;
        });
    };
    let request = async {
        asked.notify_one();
        world.get("3000-iabc.d", "/", &[]).await
    };
    let (answer, ()) = tokio::join!(request, late_start);
    answer.expect(200, "late");
}

#[tokio::test]
async fn the_guests_own_errors_pass_unchanged() {
    let world = World::start().await;
    let run = world.run("iabc");
    let guest = world.http_guest(|_| async {
        Response::builder()
            .status(502)
            .header("access-control-allow-origin", "https://page.example")
            .body(full("mine"))
            .unwrap()
    });
    run.ports.open(3000, guest.await);
    let answer = world.get("3000-iabc.d", "/", &[]).await;
    answer.expect(502, "mine");
    let origins: Vec<_> = answer
        .headers
        .get_all("access-control-allow-origin")
        .iter()
        .collect();
    assert_eq!(origins, ["https://page.example"]);
}

#[tokio::test]
async fn a_guest_that_talks_nonsense_is_unroutable() {
    let world = World::start().await;
    let run = world.run("iabc");
    let guest = world.raw_guest(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n").await;
    });
    run.ports.open(22, guest.await);
    let answer = world.get("22-iabc.d", "/", &[]).await;
    answer.expect(502, "Failed to route request to sandbox\n");
}

#[tokio::test]
async fn what_the_source_says_is_passed_on() {
    let world = World::start().await;
    for (resolution, status, message) in [
        (Resolution::NotFound, 502, "The sandbox was not found"),
        (
            Resolution::ResumeDenied,
            403,
            "This sandbox can't be resumed with the credentials provided. Check your access \
             token and try again.",
        ),
        (
            Resolution::Transitioning,
            409,
            "The sandbox is still transitioning. Try again in a moment.",
        ),
        (
            Resolution::LimitReached {
                message: String::new(),
            },
            429,
            "Sandbox limit reached",
        ),
        (
            Resolution::LimitReached {
                message: "20 at most".to_owned(),
            },
            429,
            "20 at most",
        ),
    ] {
        world.set("iabc", resolution);
        world.get("3000-iabc.d", "/", &[]).await.expect(
            status,
            &format!(r#"{{"sandboxId":"iabc","message":"{message}","code":{status}}}"#),
        );
    }
    world.set("iabc", Resolution::Unreachable);
    let unreachable = world.get("3000-iabc.d", "/", &[]).await;
    unreachable.expect(502, "Failed to route request to sandbox\n");
}

#[tokio::test]
async fn a_preflight_is_answered_where_the_guest_is_not_reached() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(3000, world.http_guest(echo).await);
    for host in ["3000-inone.d", "3210-iabc.d"] {
        let answer = world.ask("OPTIONS", host, "/", &PREFLIGHT).await;
        answer.expect(204, "");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["access-control-allow-methods"], "POST");
        assert_eq!(answer.headers["access-control-allow-headers"], "x-custom");
    }
    let forwarded = world.ask("OPTIONS", "3000-iabc.d", "/", &PREFLIGHT).await;
    forwarded.contains(200, "origin: https://page.example\n");
    assert!(
        !forwarded
            .headers
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn head_has_no_body_over_http2_either() {
    let world = World::start().await;
    let request = http::Request::head("http://3000-inone.d/").body(crate::support::empty());
    let response = world
        .h2()
        .await
        .send_request(request.unwrap())
        .await
        .unwrap();
    assert_ne!(response.headers()["content-length"], "0");
    crate::support::read(response).await.expect(502, "");
}
