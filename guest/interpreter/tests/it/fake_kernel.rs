//! A kernel that follows a script: each line of a cell is one step. It is this test program,
//! started again.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use warren_interpreter::kernel::{Message, Session, reply_frames};
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// Writes the kernel's description for one language below a Jupyter directory.
pub(crate) fn install(jupyter: &Path, name: &str, language: &str) {
    let dir = jupyter.join("kernels").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let program = std::env::current_exe().unwrap();
    // JavaScript's is one that can't stop every cell.
    let limit = (language == "javascript").then_some(1);
    let spec = json!({
        "argv": [program, "--exact", "fake_kernel::serve", "--nocapture", "{connection_file}"],
        "language": language,
        "metadata": {"warren": {"transport": "ipc", "replace_after_interrupts": limit}},
    });
    std::fs::write(dir.join("kernel.json"), spec.to_string()).unwrap();
}

#[derive(Deserialize)]
struct Connection {
    ip: String,
    shell_port: u16,
    iopub_port: u16,
    control_port: u16,
    key: String,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    code: String,
    #[serde(default)]
    silent: bool,
}

struct Fake {
    key: String,
    iopub: PubSocket,
    interrupts: Signal,
    count: u64,
    sent: u64,
    /// Silent code since the start.
    silent: Vec<String>,
}

/// The kernel's program. As a test it does nothing.
#[test]
fn serve() {
    let file = std::env::args().find(|arg| arg.ends_with("connection.json"));
    let Some(file) = file else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(kernel(&file));
}

async fn kernel(file: &str) {
    let connection: Connection = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let address = |port: u16| format!("ipc://{}-{port}", connection.ip);
    let mut iopub = PubSocket::new();
    iopub.bind(&address(connection.iopub_port)).await.unwrap();
    let mut control = RouterSocket::new();
    control
        .bind(&address(connection.control_port))
        .await
        .unwrap();
    let mut shell = RouterSocket::new();
    shell.bind(&address(connection.shell_port)).await.unwrap();
    let mut fake = Fake {
        key: connection.key,
        iopub,
        interrupts: signal(SignalKind::interrupt()).unwrap(),
        count: 0,
        sent: 0,
        silent: Vec::new(),
    };
    let session = Session::new(fake.key.clone(), "fake".to_owned());
    loop {
        let frames = shell.recv().await.unwrap().into_vec();
        let message = session.decode(&frames).unwrap();
        let id = message.header.msg_id.clone();
        fake.publish("status", &id, json!({"execution_state": "busy"}))
            .await;
        let (kind, reply) = fake.answer(&message).await;
        fake.publish("status", &id, json!({"execution_state": "idle"}))
            .await;
        let mut answer = vec![frames[0].clone()];
        answer.extend(fake.frames(kind, &id, &reply));
        shell
            .send(ZmqMessage::try_from(answer).unwrap())
            .await
            .unwrap();
    }
}

impl Fake {
    fn frames(&mut self, kind: &str, parent: &str, content: &Value) -> Vec<Bytes> {
        self.sent += 1;
        reply_frames(&self.key, kind, parent, &self.sent.to_string(), content).unwrap()
    }

    async fn publish(&mut self, kind: &str, parent: &str, content: Value) {
        let frames = self.frames(kind, parent, &content);
        self.iopub
            .send(ZmqMessage::try_from(frames).unwrap())
            .await
            .unwrap();
    }

    async fn print(&mut self, parent: &str, text: &str) {
        self.publish("stream", parent, json!({"name": "stdout", "text": text}))
            .await;
    }

    async fn answer(&mut self, message: &Message) -> (&'static str, Value) {
        if message.header.msg_type != "execute_request" {
            return ("kernel_info_reply", json!({"status": "ok"}));
        }
        let request: Request = message.content().unwrap();
        let id = &message.header.msg_id;
        if request.silent {
            self.silent.push(request.code);
            return ("execute_reply", json!({"status": "ok"}));
        }
        self.count += 1;
        let input = json!({"code": request.code, "execution_count": self.count});
        self.publish("execute_input", id, input).await;
        for step in request.code.lines() {
            if let Err(reply) = self.step(id, step).await {
                return ("execute_reply", reply);
            }
        }
        (
            "execute_reply",
            json!({"status": "ok", "execution_count": self.count}),
        )
    }

    async fn step(&mut self, id: &str, step: &str) -> Result<(), Value> {
        let (name, rest) = step.split_once(' ').unwrap_or((step, ""));
        match name {
            "print" => self.print(id, &format!("{rest}\n")).await,
            "value" => {
                let content = json!({"data": {"text/plain": rest}, "metadata": {}});
                self.publish("execute_result", id, content).await;
            }
            "silent" => self.print(id, &self.silent.concat()).await,
            "cwd" => {
                self.print(id, &std::env::current_dir().unwrap().display().to_string())
                    .await
            }
            "pid" => self.print(id, &std::process::id().to_string()).await,
            "wait" => {
                self.interrupts.recv().await;
                let error = json!({"ename": "KeyboardInterrupt", "evalue": "", "traceback": []});
                self.publish("error", id, error).await;
                return Err(json!({"status": "error", "ename": "KeyboardInterrupt"}));
            }
            // Interrupts have a handler, which this never looks at.
            "stuck" => std::future::pending().await,
            "sleep" => tokio::time::sleep(Duration::from_millis(rest.parse().unwrap())).await,
            "flood" => {
                for n in 0..rest.parse::<u32>().unwrap() {
                    let text = format!("{n:08}{}", "x".repeat(65_528));
                    self.print(id, &text).await;
                    tokio::task::yield_now().await;
                }
            }
            "fail" => return Err(json!({"status": "error", "ename": "Silent", "evalue": rest})),
            "abort" => return Err(json!({"status": "aborted"})),
            "exit" => {
                // Give the socket's writer its turn, so that the output is out.
                tokio::time::sleep(Duration::from_millis(50)).await;
                std::io::stderr().write_all(b"last words\n").unwrap();
                std::process::exit(rest.parse().unwrap());
            }
            "kill" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                )
                .unwrap();
            }
            other => panic!("unknown step {other}"),
        }
        Ok(())
    }
}
