//! Where a kernel's files are while it runs, and how a successor finds what it left.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde::Serialize;

use super::spec::Transport;
use crate::random;
use crate::sys::{self, Credentials};

/// Channels of a kernel.
const CHANNELS: usize = 5;

/// A server's directory for the files of its kernels.
#[derive(Debug, Clone)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Makes the directory, and kills the kernels that a previous server left in it.
    ///
    /// # Errors
    /// It can't be made or read.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o711).create(path)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                kill_recorded(&entry.path());
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(path.to_owned()))
    }
}

/// Kills the process group that a record names, if its leader is still the same process.
fn kill_recorded(record: &Path) {
    let Ok(text) = fs::read_to_string(record) else {
        return;
    };
    let Some((Ok(pid), started)) = text.split_once(' ').map(|(pid, s)| (pid.parse(), s)) else {
        return;
    };
    if start_time(pid).is_some_and(|now| now == started) {
        sys::signal_group(pid, Signal::KILL);
    }
}

/// When a process started, in the kernel's ticks: with its id the name of one process.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, so fields count from its closing bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// The addresses of a kernel's channels.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    transport: Transport,
    ip: String,
    ports: [u16; CHANNELS],
}

/// A kernel's channels, in the order of [`Endpoints`]' ports.
#[derive(Debug, Clone, Copy)]
pub(super) enum Channel {
    /// Requests to run code.
    Shell,
    /// Everything that the kernel publishes.
    Iopub,
    /// Requests that overtake.
    Control,
}

impl Endpoints {
    fn new(transport: Transport, dir: &Path) -> io::Result<Self> {
        let (ip, ports) = match transport {
            Transport::Ipc => (dir.join("s").display().to_string(), [1, 2, 3, 4, 5]),
            Transport::Tcp => (Ipv4Addr::LOCALHOST.to_string(), free_ports()?),
        };
        Ok(Self {
            transport,
            ip,
            ports,
        })
    }

    /// The address of a channel.
    #[must_use]
    pub(super) fn of(&self, channel: Channel) -> String {
        let port = self.ports[channel as usize];
        match self.transport {
            Transport::Ipc => format!("ipc://{}-{port}", self.ip),
            Transport::Tcp => format!("tcp://{}:{port}", self.ip),
        }
    }

    /// Whether the kernel may be listening on a channel: only then is a connection tried.
    #[must_use]
    pub(super) fn may_listen(&self, channel: Channel) -> bool {
        let port = self.ports[channel as usize];
        match self.transport {
            Transport::Ipc => Path::new(&format!("{}-{port}", self.ip)).exists(),
            Transport::Tcp => std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        }
    }
}

/// Ports that were free a moment ago: kernels can't be handed listening sockets.
fn free_ports() -> io::Result<[u16; CHANNELS]> {
    let mut ports = [0; CHANNELS];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[derive(Serialize)]
struct ConnectionFile<'a> {
    transport: Transport,
    ip: &'a str,
    shell_port: u16,
    iopub_port: u16,
    control_port: u16,
    stdin_port: u16,
    hb_port: u16,
    key: &'a str,
    signature_scheme: &'a str,
    kernel_name: &'a str,
}

/// The files of one kernel. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    record: PathBuf,
    /// Where the kernel listens.
    pub endpoints: Endpoints,
    /// Key that signs its messages.
    pub key: String,
}

impl Place {
    /// Makes the files of a kernel.
    ///
    /// # Errors
    /// They can't be made, or no port is free.
    pub(super) fn make(
        run_dir: &RunDir,
        transport: Transport,
        kernel_name: &str,
        owner: Option<&Credentials>,
    ) -> io::Result<Self> {
        let id = random::hex::<8>();
        let dir = run_dir.0.join(&id);
        DirBuilder::new().mode(0o700).create(&dir)?;
        let place = Self {
            endpoints: Endpoints::new(transport, &dir)?,
            record: run_dir.0.join(format!("{id}.pid")),
            dir,
            key: random::hex::<32>(),
        };
        let path = place.connection_file();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let [shell_port, iopub_port, control_port, stdin_port, hb_port] = place.endpoints.ports;
        let json = serde_json::to_vec(&ConnectionFile {
            transport,
            ip: &place.endpoints.ip,
            shell_port,
            iopub_port,
            control_port,
            stdin_port,
            hb_port,
            key: &place.key,
            signature_scheme: "hmac-sha256",
            kernel_name,
        })?;
        file.write_all(&json)?;
        if let Some(owner) = owner {
            chown(&path, Some(owner.uid), Some(owner.gid))?;
            chown(&place.dir, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(place)
    }

    /// The file that tells the kernel its addresses and key.
    #[must_use]
    pub(super) fn connection_file(&self) -> PathBuf {
        self.dir.join("connection.json")
    }

    /// Writes down which process the kernel is, for the next server.
    ///
    /// # Errors
    /// The record can't be written.
    pub(super) fn record(&self, pid: u32) -> io::Result<()> {
        let started = start_time(pid).unwrap_or_default();
        fs::write(&self.record, format!("{pid} {started}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is removed by the next server.
        let _ = fs::remove_file(&self.record);
        let _ = fs::remove_dir_all(&self.dir);
    }
}
