//! Bulk data through proxy and agent, beside a plain HTTP server on loopback that reads
//! the same file and swallows the same upload.

use std::convert::Infallible;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::report::Report;
use crate::server::Server;

const CHUNK: usize = 256 * 1024;
const ROUNDS: usize = 3;

/// Uploads and downloads `size` bytes, ours and the peer's in turns; the best of each
/// counts, since the machine is shared.
pub(crate) async fn run(server: &Server, size: u64, report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("peer.bin");
    let peer = start_peer(file.clone()).await?;
    let sandbox = server.api.create().await?;
    let http = &server.api.http;
    let agent_url = format!("{}/files?path=/tmp/bench.bin&username=root", server.api.url);
    let (mut ours_up, mut ours_down, mut peer_up, mut peer_down) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        let put = http.put(&peer).body(zeros(size));
        peer_up = f64::max(peer_up, timed(size, async { finish(put, 0).await }).await?);
        let post = server.api.to_agent(http.post(&agent_url), &sandbox);
        let post = post
            .header("content-type", "application/octet-stream")
            .body(zeros(size));
        ours_up = f64::max(ours_up, timed(size, async { finish(post, 0).await }).await?);
        let get = http.get(&peer);
        peer_down = f64::max(peer_down, timed(size, finish(get, size)).await?);
        let get = server
            .api
            .to_agent(http.get(&agent_url), &sandbox)
            .header("accept-encoding", "identity");
        ours_down = f64::max(ours_down, timed(size, finish(get, size)).await?);
    }
    server.api.kill(&sandbox).await?;
    report.figure("upload through proxy", ours_up, "MB/s");
    report.figure("upload to a plain HTTP sink", peer_up, "MB/s");
    report.figure("download through proxy", ours_down, "MB/s");
    report.figure("download from a static file server", peer_down, "MB/s");
    Ok(())
}

fn zeros(size: u64) -> reqwest::Body {
    let chunk = Bytes::from(vec![0_u8; CHUNK]);
    let chunks = size.div_ceil(CHUNK as u64);
    let stream = futures_util::stream::iter(0..chunks).map(move |index| {
        let left = usize::try_from(size - index * CHUNK as u64)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        Ok::<_, Infallible>(chunk.slice(..left))
    });
    reqwest::Body::wrap_stream(stream)
}

/// Sends a request and reads the answer to its end, which must have `expected` bytes if
/// that is not 0.
async fn finish(request: reqwest::RequestBuilder, expected: u64) -> anyhow::Result<()> {
    let answer = request.send().await?.error_for_status()?;
    let received = answer
        .bytes_stream()
        .try_fold(
            0_u64,
            |sum, chunk| async move { Ok(sum + chunk.len() as u64) },
        )
        .await?;
    anyhow::ensure!(
        expected == 0 || received == expected,
        "received {received} of {expected}"
    );
    Ok(())
}

async fn timed(size: u64, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let start = Instant::now();
    work.await?;
    Ok(size as f64 / 1e6 / start.elapsed().as_secs_f64())
}

/// Starts the peer: PUT writes the file, GET reads it. Returns its URL. It ends with the
/// process.
async fn start_peer(file: std::path::PathBuf) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    #[expect(
        clippy::disallowed_methods,
        reason = "the peer ends with the benchmark's runtime"
    )]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let file = file.clone();
            let service = service_fn(move |request| serve(file.clone(), request));
            #[expect(clippy::disallowed_methods, reason = "as above")]
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Ok(url)
}

async fn serve(
    path: std::path::PathBuf,
    request: Request<Incoming>,
) -> anyhow::Result<Response<UnsyncBoxBody<Bytes, std::io::Error>>> {
    if request.method() == Method::PUT {
        let mut file = tokio::fs::File::create(&path).await?;
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                tokio::io::AsyncWriteExt::write_all(&mut file, &data).await?;
            }
        }
        return Ok(Response::new(
            Empty::new().map_err(|never| match never {}).boxed_unsync(),
        ));
    }
    let file = tokio::fs::File::open(&path).await.context("open")?;
    let length = file.metadata().await?.len();
    let chunks = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file)
            .take(CHUNK as u64)
            .read_to_end(&mut chunk)
            .await?;
        Ok((read > 0).then(|| (Frame::data(Bytes::from(chunk)), file)))
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(chunks.boxed()));
    Ok(Response::builder()
        .header("content-length", length)
        .body(body)?)
}
