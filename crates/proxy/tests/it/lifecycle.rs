use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use crate::support::{Body, Run, World, empty, full, within};

/// An envelope of the streaming protocol with the payload `{}`.
const ENVELOPE: &[u8] = &[0, 0, 0, 0, 2, b'{', b'}'];

/// A guest that sends `first` and then nothing for ever.
async fn hanging(world: &World, content_type: &'static str, first: &'static [u8]) -> Run {
    let run = world.run("iabc");
    let guest = world.http_guest(move |_| async move {
        let first = stream::iter([Ok(Frame::data(Bytes::from_static(first)))]);
        let frames = first.chain(stream::pending());
        Response::builder()
            .header("content-type", content_type)
            .body(Body::new(StreamBody::new(frames)))
            .unwrap()
    });
    run.ports.open(80, guest.await);
    run
}

fn request(uri: &str) -> Request<Body> {
    Request::get(uri)
        .header("host", "80-iabc.d")
        .body(empty())
        .unwrap()
}

/// One response over each protocol, with its first frame already read.
async fn streams(world: &World, first: &[u8]) -> Vec<Incoming> {
    let mut sender = world.h2().await;
    let two = sender.send_request(request("http://80-iabc.d/"));
    let responses = [world.h1(request("/")).await, within(two).await.unwrap()];
    let mut bodies = Vec::new();
    for response in responses {
        let mut body = response.into_body();
        let frame = within(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), first);
        bodies.push(body);
    }
    bodies
}

#[tokio::test]
async fn the_end_of_a_run_breaks_its_streams_and_then_nothing_is_found() {
    let world = World::start().await;
    let run = hanging(&world, "text/plain", b"first").await;
    let bodies = streams(&world, b"first").await;
    world.remove("iabc");
    run.token.cancel();
    for body in bodies {
        within(body.collect())
            .await
            .expect_err("a cut response has no clean end");
    }
    world
        .get("80-iabc.d", "/", &[])
        .await
        .contains(502, "The sandbox was not found");
    world
        .get("49983-iabc.d", "/health", &[])
        .await
        .contains(502, "was not found");
}

#[tokio::test]
async fn a_streaming_rpc_is_cut_wherever_it_is() {
    for first in [ENVELOPE, &ENVELOPE[..6]] {
        let world = World::start().await;
        let run = hanging(&world, "application/connect+json", first).await;
        let bodies = streams(&world, first).await;
        run.token.cancel();
        for body in bodies {
            within(body.collect())
                .await
                .expect_err("a cut stream has no clean end");
        }
    }
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_learns_of_the_end() {
    let world = World::start().await;
    let run = world.run("iabc");
    let (asked, mut questions) = mpsc::channel(1);
    let guest = world.http_guest(move |_| {
        let asked = asked.clone();
        async move {
            asked.send(()).await.unwrap();
            std::future::pending().await
        }
    });
    run.ports.open(80, guest.await);
    let end = async {
        questions.recv().await.unwrap();
        run.token.cancel();
    };
    let (answer, ()) = tokio::join!(world.get("80-iabc.d", "/", &[]), end);
    answer.contains(502, "The sandbox was not found");
}

#[tokio::test]
async fn the_old_run_takes_no_new_requests_and_the_new_one_is_left_alone() {
    let world = World::start().await;
    let old = hanging(&world, "text/plain", b"old").await;
    let old_bodies = streams(&world, b"old").await;
    let new = hanging(&world, "text/plain", b"new").await;
    let new_bodies = streams(&world, b"new").await;
    old.token.cancel();
    for body in old_bodies {
        within(body.collect()).await.unwrap_err();
    }
    let more = streams(&world, b"new").await;
    drop((new_bodies, more, new));
}

#[tokio::test]
async fn the_guests_connection_is_closed_even_if_the_client_reads_nothing() {
    let world = World::start().await;
    let run = world.run("iabc");
    let (closed, mut closings) = mpsc::channel(1);
    let guest = world.raw_guest(move |mut stream| {
        let closed = closed.clone();
        async move {
            use tokio::io::AsyncWriteExt;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            // Fills every buffer on the way, until the connection goes away.
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
            closed.send(()).await.unwrap();
        }
    });
    run.ports.open(80, guest.await);
    let response = world.h1(request("/")).await;
    run.token.cancel();
    within(closings.recv()).await.unwrap();
    within(response.into_body().collect()).await.unwrap_err();
}

#[tokio::test]
async fn a_paused_sandbox_stays_unreachable() {
    let world = World::start().await;
    let run = world.run("iabc");
    run.ports.open(
        80,
        world
            .http_guest(|_| async { Response::new(full("up")) })
            .await,
    );
    world.get("80-iabc.d", "/", &[]).await.expect(200, "up");
    world.set("iabc", warren_proxy::Resolution::NotFound);
    run.token.cancel();
    world
        .get("80-iabc.d", "/", &[])
        .await
        .contains(502, "The sandbox was not found");
}
