//! The smallest agent that tests need: it listens, reports readiness, and runs one shell
//! command per connection, answering with its output and status.

#![expect(
    unsafe_code,
    reason = "a program takes over inherited descriptors by number"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use rustix::fs::inotify;

fn option(args: &[String], name: &str) -> String {
    let at = args
        .iter()
        .position(|arg| arg == name)
        .expect("option is given");
    args[at + 1].clone()
}

fn open(args: &[String], name: &str) -> File {
    let number = option(args, name).parse().expect("a descriptor's number");
    // SAFETY: the runtime left the descriptor open for this program alone, and each option
    // is taken once.
    unsafe { File::from_raw_fd(number) }
}

/// The watches that commands have set.
static WATCHES: OnceLock<OwnedFd> = OnceLock::new();

fn watch(dir: &str) -> String {
    let watches = WATCHES
        .get_or_init(|| inotify::init(inotify::CreateFlags::CLOEXEC).expect("watches can be made"));
    match inotify::add_watch(watches, dir, inotify::WatchFlags::CREATE) {
        Ok(_) => "watching".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Name in the next event.
fn event() -> String {
    let Some(watches) = WATCHES.get() else {
        return "nothing is watched".to_owned();
    };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    match inotify::Reader::new(watches, &mut buffer).next() {
        Ok(event) => event
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        Err(error) => error.to_string(),
    }
}

/// What the agent was told to remember: it is in memory alone.
static MEMORY: Mutex<String> = Mutex::new(String::new());

/// The words of the suite that every runtime must pass.
fn word(line: &str) -> Option<std::io::Result<String>> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(match word {
        "=write" => std::fs::write(path, content).map(|()| String::new()),
        "=read" => std::fs::read_to_string(path),
        "=fill" => fill(path, content).map(|()| String::new()),
        "=remember" => {
            *MEMORY.lock().expect("nobody panics") = rest.to_owned();
            Ok(String::new())
        }
        "=hold" => hold(rest),
        "=listen" => listen(rest),
        "=spawn" => spawn(rest),
        "=recall" => Ok(MEMORY.lock().expect("nobody panics").clone()),
        _ => return None,
    })
}

fn fill(path: &str, mib: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..mib.parse().map_err(std::io::Error::other)? {
        file.write_all(&[0; 1 << 20])?;
    }
    Ok(())
}

/// Takes memory and keeps it.
fn hold(mib: &str) -> std::io::Result<String> {
    let mib: usize = mib.parse().map_err(std::io::Error::other)?;
    for _ in 0..mib {
        // Touched, or the kernel gives nothing.
        Box::leak(vec![1u8; 1 << 20].into_boxed_slice());
    }
    Ok(String::new())
}

/// Answers on a port with its number.
fn listen(port: &str) -> std::io::Result<String> {
    let port: u16 = port.parse().map_err(std::io::Error::other)?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            stream
                .and_then(|mut stream| write!(stream, "{port}"))
                .expect("whoever has connected reads");
        }
    });
    Ok(String::new())
}

/// Starts processes until there are as many or no more are to be had, and ends them.
fn spawn(count: &str) -> std::io::Result<String> {
    let count: usize = count.parse().map_err(std::io::Error::other)?;
    let mut children = Vec::new();
    while children.len() < count {
        match Command::new("/bin/sleep").arg("100").spawn() {
            Ok(child) => children.push(child),
            Err(_) => break,
        }
    }
    let started = children.len();
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    Ok(started.to_string())
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let mut key = String::new();
    std::io::Read::read_to_string(&mut open(&args, "-init-key-fd"), &mut key)
        .expect("the key can be read");
    let mut log = open(&args, "-log-fd");
    writeln!(log, "{{\"message\":\"key {key}\"}}").expect("the log can be written");
    let listener = TcpListener::bind(("127.0.0.1", 49983)).expect("the port is free");
    open(&args, "-ready-fd")
        .write_all(b"1")
        .expect("the server waits");
    loop {
        let (stream, _) = listener.accept().expect("accepting works");
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut reader = BufReader::new(&stream);
            if reader.read_line(&mut line).is_err() || line.is_empty() {
                return;
            }
            let text = line.trim_end();
            if let Some(done) = word(line.trim_end()) {
                let _gone = match done {
                    Ok(text) => write!(&stream, "{text}\n=0\n"),
                    Err(error) => write!(&stream, "{error}\n=1\n"),
                };
                return;
            }
            let own = if let Some(dir) = text.strip_prefix("=watch ") {
                Some(watch(dir))
            } else {
                (text == "=event").then(event)
            };
            if let Some(answer) = own {
                let _gone = write!(&stream, "{answer}\n=0\n");
                return;
            }
            let output = Command::new("/bin/sh")
                .args(["-c", &format!("exec 2>&1; {line}")])
                .stdin(Stdio::null())
                .output();
            let (text, status) = match output {
                Ok(output) => (output.stdout, output.status.code().unwrap_or(-1)),
                Err(error) => (error.to_string().into_bytes(), 255),
            };
            // The peer may be gone; that is its choice.
            let _gone = (&stream)
                .write_all(&text)
                .and_then(|()| writeln!(&stream, "\n={status}"));
        });
    }
}
