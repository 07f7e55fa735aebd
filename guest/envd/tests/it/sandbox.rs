//! A throw-away sandbox: an overlay over this machine's root with the user `user`, in mount
//! and pid namespaces of its own, with the agent as process 1.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::client::{Reply, Request, Stream};

/// Arguments: mount point, agent, file with the init key or nothing, the agent's arguments.
const SCRIPT: &str = r#"
set -e
T=$1; BIN=$2; KEY=$3; shift 3
mount --make-rprivate /
mount -t tmpfs tmpfs "$T"
mkdir "$T/u" "$T/w" "$T/r"
mount -t overlay overlay -o "lowerdir=/,upperdir=$T/u,workdir=$T/w" "$T/r"
R=$T/r
mount -t proc proc "$R/proc"
mount --rbind /sys "$R/sys"
mount --rbind /dev "$R/dev"
mount -t devpts devpts -o newinstance,ptmxmode=0666,mode=0620 "$R/dev/pts"
mount --bind "$R/dev/pts/ptmx" "$R/dev/ptmx"
mount -t tmpfs tmpfs "$R/run"
mount -t tmpfs tmpfs "$R/tmp"
chmod 1777 "$R/tmp"
mkdir -p "$R/home"
mount -t tmpfs tmpfs "$R/home"
printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'user:x:1000:1000::/home/user:/bin/bash' > "$R/etc/passwd"
printf '%s\n' 'root:x:0:' 'user:x:1000:' 'extra:x:4321:user' > "$R/etc/group"
mkdir "$R/home/user"
chown 1000:1000 "$R/home/user"
cp "$BIN" "$R/run/envd"
if [ -n "$KEY" ]; then exec 5<"$KEY"; set -- -init-key-fd 5 "$@"; fi
exec chroot "$R" /run/envd -address 127.0.0.1 -port 0 -ready-fd 3 -log-fd 4 "$@" 3>&1 4>&0 </dev/null >/dev/null
"#;

/// A running sandbox.
pub(crate) struct Sandbox {
    child: Child,
    log: File,
    _mount_point: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Sandbox {
    /// Starts one whose default user is `user`.
    pub(crate) fn new() -> Self {
        let sandbox = Self::bare(&[]);
        let done = sandbox.init(&json!({"defaultUser": "user"}));
        assert_eq!(done.status, 204, "{}", done.text());
        sandbox
    }

    /// Starts one with a token.
    pub(crate) fn secure(token: &str) -> Self {
        let sandbox = Self::bare(&[]);
        let done = sandbox.init(&json!({"defaultUser": "user", "accessToken": token}));
        assert_eq!(done.status, 204, "{}", done.text());
        sandbox
    }

    /// Starts one that reads its init key from a file.
    pub(crate) fn with_key(path: &Path) -> Self {
        Self::launch(&[], path)
    }

    /// Starts one as it is before `/init`.
    pub(crate) fn bare(args: &[&str]) -> Self {
        Self::launch(args, Path::new(""))
    }

    fn launch(args: &[&str], key: &Path) -> Self {
        let mount_point = tempfile::tempdir().unwrap();
        let log = tempfile::tempfile().unwrap();
        let mut child = Command::new("unshare")
            .args(["-m", "-p", "-f", "--kill-child", "sh", "-c", SCRIPT, "sh"])
            .arg(mount_point.path())
            .arg(env!("CARGO_BIN_EXE_envd"))
            .arg(key)
            .args(args)
            .stdin(OwnedFd::from(log.try_clone().unwrap()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("needs unshare(1)");
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| {
            panic!("no sandbox: these tests need root, mount and pid namespaces, and overlayfs")
        });
        Self {
            child,
            log,
            _mount_point: mount_point,
            port,
        }
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request::new(self.port, method, path)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path).send()
    }

    pub(crate) fn init(&self, body: &Value) -> Reply {
        self.request("POST", "/init").json(body).send()
    }

    /// A unary call with JSON.
    pub(crate) fn call(&self, method: &str, body: &Value) -> Reply {
        self.request("POST", &format!("/{method}"))
            .json(body)
            .send()
    }

    /// A server-stream call with JSON.
    pub(crate) fn stream(&self, method: &str, body: &Value) -> Stream {
        self.request("POST", &format!("/{method}")).stream(body)
    }

    /// Starts a shell command without input.
    pub(crate) fn start(&self, script: &str) -> Stream {
        self.stream("process.Process/Start", &shell(script))
    }

    /// Runs a shell command and returns its standard output.
    pub(crate) fn run(&self, script: &str) -> String {
        let outcome = self.start(script).finish();
        assert_eq!(
            outcome.end["status"], "exit status 0",
            "{script}: {outcome:?}"
        );
        String::from_utf8(outcome.stdout).unwrap()
    }

    /// Runs a shell command as root.
    pub(crate) fn run_root(&self, script: &str) -> String {
        let stream = self
            .request("POST", "/process.Process/Start")
            .header("authorization", "Basic cm9vdDo=")
            .stream(&shell(script));
        let outcome = stream.finish();
        assert_eq!(
            outcome.end["status"], "exit status 0",
            "{script}: {outcome:?}"
        );
        String::from_utf8(outcome.stdout).unwrap()
    }

    /// Uploads a file.
    pub(crate) fn upload(&self, path: &str, content: &[u8]) -> Reply {
        self.request("POST", &format!("/files?path={path}"))
            .header("content-type", "application/octet-stream")
            .body(content)
            .send()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; 1 << 20];
        let length = self.log.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Asks the agent to stop and waits for the end of the namespace.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.agent_pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// The agent's process id on this machine.
    pub(crate) fn agent_pid(&self) -> u32 {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(path).unwrap();
        children.trim().parse().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Killing the parent kills process 1, and with it the whole namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The request that SDKs send for a command.
pub(crate) fn shell(script: &str) -> Value {
    json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", script]}, "stdin": false})
}
