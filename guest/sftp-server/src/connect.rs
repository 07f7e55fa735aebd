//! A connection from inside the sandbox, joined with standard input and output. It is the
//! sandbox's own, so its egress policy holds.

use std::io;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::TcpStream;

/// Told on standard output before anything else, so that who asked knows that it stands.
const CONNECTED: &[u8] = b"\n";

/// Connects and copies both ways until both directions have ended.
pub(crate) async fn run(host: &str, port: &str) -> io::Result<()> {
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not a port"))?;
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.split();
    let mut out = tokio::io::stdout();
    out.write_all(CONNECTED).await?;
    out.flush().await?;
    let forth = async {
        copy(&mut tokio::io::stdin(), &mut to).await?;
        to.shutdown().await
    };
    let back = async {
        copy(&mut from, &mut out).await?;
        out.flush().await?;
        out.shutdown().await
    };
    // Once the other side has ended, what is still typed has nowhere to go.
    tokio::pin!(forth, back);
    tokio::select! {
        result = &mut back => result,
        result = &mut forth => {
            result?;
            back.await
        }
    }
}
