//! Waiting for a server to be ready: what a template's ready command does, in a program that
//! is there anyway and starts in a millisecond.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long is waited at most.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between tries. The server itself holds an answer back until it is ready.
const PAUSE: Duration = Duration::from_millis(10);
/// Longer than the server holds an answer back.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Longest status line that is read.
const STATUS_LINE: u64 = 64;

/// The server did not become ready.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The address has no port.
    #[error("{0} is no address with a port")]
    Address(String),
    /// It took too long.
    #[error("the server is not ready after {} s", LIMIT.as_secs())]
    Late(#[source] io::Error),
}

/// Waits until the server that listens on the port of `address` is ready.
///
/// # Errors
/// It does not become ready within a minute.
pub fn until_ready(address: &str) -> Result<(), WaitError> {
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .ok_or_else(|| WaitError::Address(address.to_owned()))?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + LIMIT;
    loop {
        match ask(server) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(WaitError::Late(error)),
            Err(_) => sleep(PAUSE),
        }
    }
}

fn ask(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    let read = stream.take(STATUS_LINE).read_to_string(&mut answer);
    read?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::Error::other(answer))
}
