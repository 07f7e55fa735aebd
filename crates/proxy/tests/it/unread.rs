use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren_proxy::{ListenerConfig, serve, watch};
use warren_service::{CancellationToken, Tasks};

use crate::support::within;

/// Refuses everything without reading it.
async fn refuse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (request, unread) = watch(request);
    drop(request);
    let mut response = Response::new(Full::from("no"));
    unread.finish(&mut response).await;
    Ok(response)
}

/// Reads one answer of the service above.
async fn answer(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nno") {
        assert!(within(client.read_buf(&mut text)).await.unwrap() > 0);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_or_says_that_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), Tasks::new());
    let service = service_fn(refuse);
    tasks.spawn(serve(
        listener,
        service,
        stop.clone(),
        ListenerConfig::default(),
    ));

    let mut client = TcpStream::connect(address).await.unwrap();
    for late in ["4\r\nbody\r\n0\r\n\r\n", ""] {
        let framing = match late {
            "" => "content-length: 0",
            _ => "transfer-encoding: chunked",
        };
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // The answer is known long before the body comes.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        client.write_all(late.as_bytes()).await.unwrap();
        let text = answer(&mut client).await;
        assert!(!text.contains("connection: close"), "{text}");
    }
    for (more, length) in [("", 200_000), ("expect: 100-continue\r\n", 4)] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{more}content-length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        if more.is_empty() {
            client.write_all(&vec![0; 100_000]).await.unwrap();
        }
        let text = answer(&mut client).await;
        assert!(text.contains("connection: close"), "{text}");
    }
    stop.cancel();
}
