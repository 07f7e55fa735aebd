//! The server under test.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::{command, output, say};

/// The first start of all makes templates from packages.
const START_LIMIT: Duration = Duration::from_secs(1800);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a process that can't tell.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How much of the log is shown when the server fails.
const SHOWN_LOG: u64 = 8192;

/// A running server with a data directory of its own.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    program: PathBuf,
    layers_dir: PathBuf,
    address: SocketAddr,
    key: String,
    /// Of another team.
    other_key: String,
    log: PathBuf,
}

impl Server {
    /// Starts one and waits until it answers.
    pub(crate) fn start(program: &Path, scratch: &Path, layers_dir: &Path) -> Result<Self> {
        let address = free_address()?;
        let key_file = scratch.join("api-key");
        let log = scratch.join("server.log");
        let output = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        say(&format!(
            "starting a server on {address}, log {}",
            log.display()
        ));
        let child = Command::new(program)
            .args(["up", "--end-sandboxes", "--listen", &address.to_string()])
            .args(["--ssh-listen", "127.0.0.1:0"])
            .args(["--templates", "code-interpreter-v1", "--wait-templates"])
            .arg("--data-dir")
            .arg(scratch.join("data"))
            .arg("--api-key-file")
            .arg(&key_file)
            .arg("--layers-dir")
            .arg(layers_dir)
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().context("share the log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("run {}", program.display()))?;
        let mut server = Self {
            child,
            program: program.to_owned(),
            layers_dir: layers_dir.to_owned(),
            address,
            key: String::new(),
            other_key: String::new(),
            log,
        };
        server.wait_until_healthy()?;
        let key = fs::read_to_string(&key_file)
            .with_context(|| format!("read {}", key_file.display()))?;
        key.trim().clone_into(&mut server.key);
        server.other_key = server.make_team("Another team of the suites")?;
        Ok(server)
    }

    /// Where it keeps its data.
    fn data_dir(&self) -> PathBuf {
        self.log.with_file_name("data")
    }

    /// Makes a team; gives its key.
    fn make_team(&self, name: &str) -> Result<String> {
        let mut create = command(&self.program, ["team", "create", name, "--data-dir"]);
        create.arg(self.data_dir());
        let told = String::from_utf8(output(create)?).context("read a key")?;
        let key = told.lines().last().context("no key was printed")?;
        Ok(key.to_owned())
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !is_healthy(self.address) {
            if let Some(status) = self.child.try_wait().context("look at the server")? {
                bail!("the server ended: {status}\n{}", self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("the server does not answer\n{}", self.log_tail());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Variables that tell the suites about it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        let url = format!("http://{}", self.address);
        vec![
            ("E2B_API_URL", url.clone().into()),
            ("E2B_SANDBOX_URL", url.clone().into()),
            ("E2B_VOLUME_API_URL", url.into()),
            ("E2B_API_KEY", self.key.clone().into()),
            ("WARREN_OTHER_API_KEY", self.other_key.clone().into()),
            ("WARREN_BIN", self.program.clone().into()),
            ("WARREN_DATA_DIR", self.data_dir().into()),
            ("WARREN_LAYERS_DIR", self.layers_dir.clone().into()),
            ("WARREN_PID", self.child.id().to_string().into()),
        ]
    }

    /// Asks it to end with all its sandboxes. That it dies of anything else, or hangs, is a
    /// failure.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().context("look at the server")? {
            bail!(
                "the server ended during the run: {status}\n{}",
                self.log_tail()
            );
        }
        let status = self.terminate()?;
        if !status.is_some_and(|status| status.success()) {
            let how = status.map_or_else(
                || "had to be killed".to_owned(),
                |status| format!("ended badly: {status}"),
            );
            bail!("the server {how}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Ends the process; `None` if it had to be killed.
    fn terminate(&mut self) -> Result<Option<ExitStatus>> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).context("signal the server")?;
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().context("look at the server")? {
                return Ok(Some(status));
            }
            thread::sleep(LOOK_EVERY);
        }
        self.child.kill().context("kill the server")?;
        self.child.wait().context("wait for the server")?;
        Ok(None)
    }

    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let start = file.metadata()?.len().saturating_sub(SHOWN_LOG);
            file.seek(SeekFrom::Start(start))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        read().unwrap_or_else(|error| format!("its log can't be read: {error}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None))
            && let Err(error) = self.terminate()
        {
            say(&format!("the server may be left running: {error:#}"));
        }
    }
}

/// An address that nobody listens on. Another program may take it before the server does,
/// which then says so.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .context("find a free port")
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.starts_with(b"HTTP/1.1 20"))
    };
    ask().unwrap_or(false)
}
