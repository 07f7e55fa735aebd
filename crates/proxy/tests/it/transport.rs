use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use crate::support::{Body, Run, World, empty, full, read, within};

const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 512;

/// Byte `index` of every large transfer.
fn pattern(index: usize) -> u8 {
    u8::try_from((index * 7 + index / 251) % 256).unwrap()
}

fn chunk(number: usize) -> Bytes {
    (number * CHUNK..(number + 1) * CHUNK)
        .map(pattern)
        .collect()
}

fn large() -> Body {
    let frames = stream::iter(0..CHUNKS).map(|number| Ok(Frame::data(chunk(number))));
    Body::new(StreamBody::new(frames))
}

/// Reads a large transfer frame by frame; says how many frames before the end were empty.
async fn check_large(mut body: Incoming) -> usize {
    let (mut total, mut empty_frames) = (0, 0);
    while let Some(frame) = within(body.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        empty_frames += usize::from(data.is_empty());
        let expected: Vec<u8> = (total..total + data.len()).map(pattern).collect();
        assert!(data == expected, "content differs after {total} bytes");
        total += data.len();
    }
    assert_eq!(total, CHUNK * CHUNKS);
    empty_frames
}

async fn transfers(request: Request<Incoming>) -> Response<Body> {
    if request.method() == "POST" {
        check_large(request.into_body()).await;
        return Response::new(full("received"));
    }
    Response::new(large())
}

async fn world() -> (World, Run) {
    let world = World::start().await;
    let run = world.run("iabc");
    (world, run)
}

#[tokio::test]
async fn large_bodies_pass_unharmed_over_http1() {
    let (world, run) = world().await;
    run.ports.open(80, world.http_guest(transfers).await);
    let request = Request::get("/")
        .header("host", "80-iabc.d")
        .body(empty())
        .unwrap();
    check_large(world.h1(request).await.into_body()).await;
    let request = Request::post("/")
        .header("host", "80-iabc.d")
        .body(large())
        .unwrap();
    read(world.h1(request).await).await.expect(200, "received");
}

#[tokio::test]
async fn large_bodies_pass_unharmed_over_http2_without_empty_frames() {
    let (world, run) = world().await;
    run.ports.open(80, world.http_guest(transfers).await);
    let mut sender = world.h2().await;
    let request = Request::get("http://80-iabc.d/").body(empty()).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    // The end may be an empty frame of its own.
    assert!(check_large(response.into_body()).await <= 1);
    let request = Request::post("http://80-iabc.d/").body(large()).unwrap();
    let answer = read(within(sender.send_request(request)).await.unwrap()).await;
    answer.expect(200, "received");
}

/// A guest whose response is whatever the test sends, chunk by chunk.
async fn fed(world: &World, content_type: &'static str) -> (std::net::SocketAddr, Feed) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = std::sync::Arc::new(tokio::sync::Mutex::new(receiver));
    let guest = world.http_guest(move |_| {
        let receiver = std::sync::Arc::clone(&receiver);
        async move {
            let receiver = receiver.lock_owned().await;
            let frames = stream::unfold(receiver, |mut receiver| async {
                let data = receiver.recv().await?;
                Some((Ok::<_, io::Error>(Frame::data(data)), receiver))
            });
            Response::builder()
                .header("content-type", content_type)
                .body(Body::new(StreamBody::new(frames)))
                .unwrap()
        }
    });
    (guest.await, sender)
}

type Feed = mpsc::Sender<Bytes>;

#[tokio::test]
async fn every_event_arrives_before_the_next_is_sent() {
    let (world, run) = world().await;
    let (guest, feed) = fed(&world, "text/event-stream").await;
    run.ports.open(80, guest);
    let one = Request::get("/")
        .header("host", "80-iabc.d")
        .body(empty())
        .unwrap();
    let two = Request::get("http://80-iabc.d/").body(empty()).unwrap();
    let mut sender = world.h2().await;
    for is_h2 in [false, true] {
        let mut body = if is_h2 {
            within(sender.send_request(two.clone_empty()))
                .await
                .unwrap()
                .into_body()
        } else {
            world.h1(one.clone_empty()).await.into_body()
        };
        for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
            feed.send(Bytes::from(event)).await.unwrap();
            let frame = within(body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), event);
        }
    }
}

trait CloneEmpty {
    fn clone_empty(&self) -> Request<Body>;
}

impl CloneEmpty for Request<Body> {
    fn clone_empty(&self) -> Request<Body> {
        let mut request = Request::new(empty());
        *request.uri_mut() = self.uri().clone();
        *request.headers_mut() = self.headers().clone();
        request
    }
}

#[tokio::test]
async fn the_guest_notices_a_client_that_goes_away() {
    let (world, run) = world().await;
    let (asked, mut questions) = mpsc::channel(4);
    let (closed, mut closings) = mpsc::channel(4);
    let guest = world.raw_guest(move |mut stream| {
        let (asked, closed) = (asked.clone(), closed.clone());
        async move {
            let mut buffer = [0; 4096];
            assert!(stream.read(&mut buffer).await.unwrap() > 0);
            asked.send(()).await.unwrap();
            if buffer.starts_with(b"GET /head") {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
                stream.write_all(head).await.unwrap();
            }
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
            closed.send(()).await.unwrap();
        }
    });
    run.ports.open(80, guest.await);
    // Before the response's head, and in the middle of its body.
    for path in ["/silent", "/head"] {
        let mut client = world.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 80-iabc.d\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        within(questions.recv()).await.unwrap();
        if path == "/head" {
            let mut answer = [0; 1024];
            assert!(client.read(&mut answer).await.unwrap() > 0);
        }
        drop(client);
        within(closings.recv()).await.unwrap();
    }
    let mut sender = world.h2().await;
    let request = Request::get("http://80-iabc.d/head").body(empty()).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    drop(response);
    within(closings.recv()).await.unwrap();
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let (world, run) = world().await;
    let guest = world.http_guest(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body))
    });
    run.ports.open(80, guest.await);
    let mut client = BufReader::new(world.connect().await);
    let head = "POST / HTTP/1.1\r\nhost: 80-iabc.d\r\nconnection: close\r\n\
                content-length: 4\r\nexpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    within(client.read_line(&mut line)).await.unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    client.write_all(b"ping").await.unwrap();
    let mut rest = String::new();
    within(client.read_to_string(&mut rest)).await.unwrap();
    assert!(
        rest.contains("HTTP/1.1 200 OK\r\n") && rest.ends_with("ping"),
        "{rest}"
    );
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let (world, run) = world().await;
    let guest = world.http_guest(|request| async {
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        let data = stream::iter([
            Ok::<_, Infallible>(Frame::data(body.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ]);
        let body = StreamBody::new(data).map_err(|never| match never {});
        Response::builder()
            .header("trailer", "x-sum")
            .body(Body::new(body))
            .unwrap()
    });
    run.ports.open(80, guest.await);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from("data"))),
        Ok(Frame::trailers(trailers)),
    ];
    let request = Request::post("http://80-iabc.d/")
        .header("te", "trailers")
        .header("trailer", "x-sum")
        .body(Body::new(StreamBody::new(stream::iter(frames))))
        .unwrap();
    let response = within(world.h2().await.send_request(request))
        .await
        .unwrap();
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "42");
    assert_eq!(body.to_bytes(), "data");
}

#[tokio::test]
async fn a_guest_that_breaks_off_never_looks_complete() {
    let (world, run) = world().await;
    let guest = world.raw_guest(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await;
    });
    run.ports.open(80, guest.await);
    let request = Request::get("/")
        .header("host", "80-iabc.d")
        .body(empty())
        .unwrap();
    let mut body = world.h1(request).await.into_body();
    // What the guest sent before is not lost.
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "hello");
    within(body.frame()).await.unwrap().unwrap_err();
    let request = Request::get("http://80-iabc.d/").body(empty()).unwrap();
    let answer = async {
        let response = world.h2().await.send_request(request).await?;
        response.into_body().collect().await
    };
    within(answer).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_guest_that_answers_before_it_has_read_all_is_heard() {
    let (world, run) = world().await;
    let guest = world.raw_guest(|mut stream| async move {
        let mut head = [0; 16];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 413 Too Much\r\ncontent-length: 6\r\n\r\nenough")
            .await;
        // Not all was read, so closing resets the connection.
    });
    run.ports.open(80, guest.await);
    for _ in 0..200 {
        let (mut reading, mut writing) = world.connect().await.into_split();
        let send = async {
            let head = b"POST / HTTP/1.1\r\nhost: 80-iabc.d\r\ntransfer-encoding: chunked\r\n\r\n";
            writing.write_all(head).await.unwrap();
            // The proxy closes in the end, and then this fails.
            while writing.write_all(b"4\r\nmore\r\n").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let receive = async {
            let mut answer = Vec::new();
            while !answer.ends_with(b"enough") {
                let count = reading.read_buf(&mut answer).await.unwrap();
                assert!(count > 0, "{}", String::from_utf8_lossy(&answer));
            }
        };
        within(async {
            tokio::select! {
                () = receive => {}
                () = async { send.await; std::future::pending().await } => {}
            }
        })
        .await;
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_their_length() {
    let (world, run) = world().await;
    let guest = world.raw_guest(|mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n")
            .await;
    });
    run.ports.open(80, guest.await);
    let one = world.ask("HEAD", "80-iabc.d", "/", &[]).await;
    one.expect(200, "");
    assert_eq!(one.headers["content-length"], "1234");
    let request = Request::head("http://80-iabc.d/").body(empty()).unwrap();
    let two = read(
        within(world.h2().await.send_request(request))
            .await
            .unwrap(),
    )
    .await;
    two.expect(200, "");
    assert_eq!(two.headers["content-length"], "1234");
}
