//! A client that shows exactly what is on the wire.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Request {
    port: u16,
    head: String,
    body: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(port: u16, method: &str, path: &str) -> Self {
        Self {
            port,
            head: format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n"),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string().as_bytes())
    }

    /// Opens a connection and sends everything.
    pub(crate) fn open(self) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{}content-length: {}\r\n\r\n", self.head, self.body.len());
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&self.body).unwrap();
        BufReader::new(socket)
    }

    /// Sends the head only, for bodies in chunks.
    pub(crate) fn open_chunked(self) -> BufReader<TcpStream> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{}transfer-encoding: chunked\r\n\r\n", self.head);
        socket.write_all(head.as_bytes()).unwrap();
        BufReader::new(socket)
    }

    pub(crate) fn send(self) -> Reply {
        let no_body = self.head.starts_with("HEAD ");
        let mut reader = self.open();
        let mut reply = read_head(&mut reader);
        if no_body || matches!(reply.status, 204 | 304) {
            return reply;
        }
        if let Some(length) = reply.header("content-length") {
            reply.body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut reply.body).unwrap();
        } else {
            while let Some(chunk) = read_chunk(&mut reader) {
                reply.body.extend(chunk);
            }
        }
        reply
    }

    /// Sends one enveloped message and follows the stream.
    pub(crate) fn stream(self, message: &Value) -> Stream {
        let request = self
            .header("content-type", "application/connect+json")
            .body(&envelope(message));
        Stream::new(request.open())
    }
}

/// Puts a message into a frame.
pub(crate) fn envelope(message: &Value) -> Vec<u8> {
    let payload = message.to_string();
    let mut out = vec![0];
    out.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend(payload.as_bytes());
    out
}

/// Puts bytes into a chunk.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend(bytes);
    out.extend(b"\r\n");
    out
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Reply {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    Reply {
        status,
        headers,
        body: Vec::new(),
    }
}

/// `None` at the last chunk.
fn read_chunk(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let length = usize::from_str_radix(line.trim_end(), 16).expect("connection was cut");
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).unwrap();
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// Asserts a REST error and nothing but it.
    #[track_caller]
    pub(crate) fn assert_rest_error(&self, code: u16, message: &str) {
        let expected = serde_json::json!({"code": code, "message": message});
        assert_eq!((self.status, self.json()), (code, expected));
    }

    /// Asserts the error of a unary call.
    #[track_caller]
    pub(crate) fn assert_rpc_error(&self, status: u16, code: &str, message: &str) {
        let body = self.json();
        assert_eq!(
            (self.status, &body["code"]),
            (status, &Value::from(code)),
            "{body}"
        );
        let text = body["message"].as_str().unwrap();
        assert!(text.contains(message), "{text}");
    }
}

/// A server stream.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    pub(crate) head: Reply,
    buffer: Vec<u8>,
}

/// What a process stream delivered.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) pid: u64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) pty: Vec<u8>,
    pub(crate) end: Value,
    pub(crate) keepalives: usize,
    /// Payload of the last frame.
    pub(crate) trailer: Value,
}

impl Stream {
    pub(crate) fn new(mut reader: BufReader<TcpStream>) -> Self {
        let head = read_head(&mut reader);
        Self {
            reader,
            head,
            buffer: Vec::new(),
        }
    }

    /// The next frame: flags and payload.
    pub(crate) fn next(&mut self) -> (u8, Value) {
        loop {
            if let [flags, a, b, c, d, rest @ ..] = &self.buffer[..] {
                let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                if rest.len() >= length {
                    let value = serde_json::from_slice(&rest[..length]).unwrap();
                    let flags = *flags;
                    self.buffer.drain(..5 + length);
                    return (flags, value);
                }
            }
            let more = if let Some(length) = self.head.header("content-length") {
                let mut body = vec![0; length.parse().unwrap()];
                self.reader.read_exact(&mut body).unwrap();
                body
            } else {
                read_chunk(&mut self.reader).expect("stream ended without its last frame")
            };
            self.buffer.extend(more);
        }
    }

    /// The next process event.
    pub(crate) fn event(&mut self) -> Value {
        let (flags, value) = self.next();
        assert_eq!(flags, 0, "{value}");
        value["event"].clone()
    }

    /// The pid in the first event.
    pub(crate) fn pid(&mut self) -> u64 {
        let event = self.event();
        event["start"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{event}"))
    }

    /// Follows a process stream to its end.
    pub(crate) fn finish(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            let (flags, value) = self.next();
            if flags == 2 {
                outcome.trailer = value;
                return outcome;
            }
            let event = &value["event"];
            let data = |name: &str| STANDARD.decode(event["data"][name].as_str()?).ok();
            if let Some(pid) = event["start"]["pid"].as_u64() {
                outcome.pid = pid;
            }
            outcome.stdout.extend(data("stdout").unwrap_or_default());
            outcome.stderr.extend(data("stderr").unwrap_or_default());
            outcome.pty.extend(data("pty").unwrap_or_default());
            outcome.keepalives += usize::from(event.get("keepalive").is_some());
            if let Some(end) = event.get("end") {
                outcome.end = end.clone();
            }
        }
    }

    /// Reads until the terminal has shown `text`.
    pub(crate) fn until(&mut self, text: &str) -> String {
        let mut shown = Vec::new();
        loop {
            let seen = String::from_utf8_lossy(&shown).into_owned();
            if seen.contains(text) {
                return seen;
            }
            let event = self.event();
            let data = &event["data"];
            for name in ["pty", "stdout"] {
                if let Some(bytes) = data[name].as_str() {
                    shown.extend(STANDARD.decode(bytes).unwrap());
                }
            }
        }
    }
}
