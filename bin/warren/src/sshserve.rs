//! Joins the edge for SSH with the use cases and the node.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use warren_control::{AuthError, Caller, Control, Resume, SandboxError};
use warren_node::Node;
use warren_runtime::Runtime;
use warren_service::{CancellationToken, Chain};
use warren_ssh::{Access, Dial, Guest, Host, HostError, HostKey, OpenError, ServerConfig, serve};
use warren_types::{SandboxId, SandboxState, TeamId, TeamState};

use crate::data::DataDir;

/// Life that a sandbox has left at least while somebody is connected, in seconds.
const LIFE_S: u16 = 300;

/// SSH, not served yet.
pub(crate) struct Ssh {
    listener: TcpListener,
    address: SocketAddr,
    key: HostKey,
}

impl Ssh {
    /// Binds the address and keeps the host key.
    pub(crate) async fn open(address: SocketAddr, data: &DataDir) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address} for SSH\nhint: choose another with --ssh-listen")
        })?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            key: HostKey::keep(&data.path().join("ssh_host_ed25519"))?,
        })
    }

    /// What clients of the API are told.
    pub(crate) fn facts(&self) -> warren_api::SshServer {
        warren_api::SshServer {
            port: self.address.port(),
            host_key: self.key.public(),
            fingerprint: self.key.fingerprint(),
        }
    }

    /// Serves until told to stop.
    pub(crate) async fn serve<R: Runtime>(
        self,
        node: Arc<Node<R>>,
        control: Arc<Control>,
        stop: CancellationToken,
    ) {
        tracing::info!(address = %self.address, host_key = %self.key.fingerprint(), "SSH");
        let host = Arc::new(LocalHost { node, control });
        serve(self.listener, host, stop, ServerConfig::new(self.key)).await;
    }
}

/// The node and the use cases of this process.
#[derive(Debug)]
struct LocalHost<R: Runtime> {
    node: Arc<Node<R>>,
    control: Arc<Control>,
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> HostError {
    tracing::error!(error = %Chain(error), "an SSH client was not served");
    HostError
}

impl<R: Runtime> LocalHost<R> {
    async fn caller(&self, team: TeamId) -> Result<Option<Arc<Caller>>, HostError> {
        let caller = self.control.caller_for_team(&team.to_string()).await;
        caller.map_err(|error| unavailable(&error))
    }

    /// Has a sandbox of this team running. `None` if it is not the team's.
    async fn running(&self, team: TeamId, id: &SandboxId) -> Result<Option<()>, OpenError> {
        let Some(caller) = self.caller(team).await? else {
            return Ok(None);
        };
        if caller.team.state != TeamState::Active {
            return Err(OpenError::Refused(format!(
                "your team is {} on this server",
                caller.team.state
            )));
        }
        let longest = caller.team.max_length.as_secs();
        let resume = Resume {
            timeout_s: i64::try_from(longest).map_or(LIFE_S.into(), |s| s.min(LIFE_S.into())),
            memory: true,
            auto_pause: None,
        };
        match self.control.connect(&caller, id, resume, false).await {
            Ok(_) => Ok(Some(())),
            Err(SandboxError::NotFound(_)) => Ok(None),
            Err(error @ (SandboxError::Store(_) | SandboxError::Node(_))) => {
                Err(unavailable(&error).into())
            }
            Err(error) => Err(OpenError::Refused(error.to_string())),
        }
    }
}

#[async_trait]
impl<R: Runtime> Host for LocalHost<R> {
    async fn public_key(
        &self,
        fingerprint: &str,
        is_proven: bool,
    ) -> Result<Option<Access>, HostError> {
        let teams = self.control.ssh_key_teams(fingerprint, is_proven).await;
        let teams = teams.map_err(|error| unavailable(&error))?;
        Ok((!teams.is_empty()).then_some(Access { teams }))
    }

    async fn password(&self, password: &str) -> Result<Option<Access>, HostError> {
        match self.control.authenticate_key(password).await {
            // A shell can change everything.
            Ok(caller) if caller.require_write(false).is_err() => Ok(None),
            Ok(caller) => Ok(Some(Access {
                teams: vec![caller.team.id],
            })),
            Err(error @ AuthError::Store(_)) => Err(unavailable(&error)),
            Err(_) => Ok(None),
        }
    }

    async fn open(&self, access: &Access, id: &SandboxId) -> Result<Guest, OpenError> {
        for team in &access.teams {
            if self.running(*team, id).await?.is_none() {
                continue;
            }
            // Paused or ended again in between.
            let Some(facts) = self.node.route(id) else {
                break;
            };
            return Ok(Guest {
                dial: Arc::new(LocalDial(facts.dial)),
                run: facts.run,
                access_token: facts.access_token,
            });
        }
        Err(OpenError::NotFound(id.clone()))
    }

    async fn keep(&self, access: &Access, id: &SandboxId) {
        for team in &access.teams {
            let Ok(Some(caller)) = self.caller(*team).await else {
                continue;
            };
            // One that has its longest life, or has just ended, is left alone.
            if let Err(error) = self.control.refresh(&caller, id, LIFE_S.into()).await {
                tracing::debug!(sandbox_id = %id, error = %Chain(&error), "not kept");
            }
        }
    }

    async fn farewell(&self, access: &Access, id: &SandboxId) -> String {
        for team in &access.teams {
            let Ok(Some(caller)) = self.caller(*team).await else {
                continue;
            };
            match self.control.get(&caller, id).await {
                Ok(sandbox) if sandbox.record.state != SandboxState::Running => {
                    return "was paused; connect again to resume it".to_owned();
                }
                Err(SandboxError::Ended { end, .. }) => return end.explain(),
                _ => {}
            }
        }
        match self.control.recent_end(id) {
            Some(end) => end.explain(),
            None => "was paused or has ended".to_owned(),
        }
    }
}

/// The runtime's way into a sandbox, as the edge wants it.
#[derive(Debug)]
struct LocalDial(Arc<dyn warren_runtime::Dial>);

impl Dial for LocalDial {
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
        self.0.dial(port)
    }

    fn listen(
        &self,
        port: u16,
        is_loopback: bool,
    ) -> Pin<Box<dyn Future<Output = io::Result<TcpListener>> + Send + '_>> {
        self.0.listen(port, is_loopback)
    }
}
