//! One client: who it is, and the requests on its channels.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::keys::HashAlg;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty, Sig};
use tokio::sync::OnceCell;
use tokio::time::sleep;
use tracing::{debug, info};
use warren_service::{CancellationToken, Tasks};
use warren_types::TeamId;

use crate::agent::AgentError;
use crate::channels::Channels;
use crate::command::{self, Wanted};
use crate::forward;
use crate::gate::Undelivered;
use crate::host::{Access, Guest, Host, OpenError};
use crate::login::{BadLogin, Login};
use crate::server::{Counts, Place};
use crate::session;

/// How often a sandbox that somebody is connected to is kept from ending.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long sessions get to tell their clients why they end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long a client gets to go after it was told to.
const LEAVE: Duration = Duration::from_secs(2);
/// Ports that a client has listened on inside.
const MAX_LISTENERS: usize = 16;
/// Connections of a team at a time.
const MAX_OF_TEAM: usize = 256;

/// Why a session or connection can't be served. The texts are for the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Login(#[from] BadLogin),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("{0}")]
    Ended(String),
    #[error("the command is not UTF-8")]
    NotText,
}

/// Who was let in.
#[derive(Debug)]
struct Identity {
    access: Access,
    login: Result<Login, BadLogin>,
}

/// What all tasks of a connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) channels: Channels,
    pub(crate) undelivered: Arc<Undelivered>,
    /// Addresses and ports of client and server, as `SSH_CONNECTION` has them.
    pub(crate) ends: String,
    pub(crate) handle: OnceLock<Handle>,
    /// Ends the connection at once.
    pub(crate) cut: CancellationToken,
    /// Work that may outlive its channel, but not for long.
    pub(crate) tasks: Tasks,
    /// What serves channels.
    sessions: Tasks,
    identity: OnceLock<Identity>,
    guest: OnceCell<Guest>,
}

impl Shared {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        ends: String,
        cut: CancellationToken,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            channels: Channels::default(),
            undelivered: Arc::default(),
            ends,
            handle: OnceLock::new(),
            cut,
            tasks,
            sessions: Tasks::new(),
            identity: OnceLock::new(),
            guest: OnceCell::new(),
        })
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.identity.get().is_some()
    }

    /// Waits for what serves channels, for a while.
    pub(crate) async fn finish(&self) {
        self.sessions.stop(FAREWELL).await;
    }

    fn login(&self) -> Result<(&Access, &Login), ServeError> {
        // No channel is opened before somebody was let in.
        let identity = self.identity.get().ok_or(BadLogin)?;
        match &identity.login {
            Ok(login) => Ok((&identity.access, login)),
            Err(error) => Err((*error).into()),
        }
    }

    /// The sandbox of this connection, resumed at its first use.
    pub(crate) async fn guest(self: &Arc<Self>) -> Result<(&Guest, &Login), ServeError> {
        let (access, login) = self.login()?;
        let open = async {
            let guest = self.host.open(access, &login.sandbox).await?;
            self.tasks.spawn(Arc::clone(self).follow(guest.clone()));
            Ok::<_, OpenError>(guest)
        };
        let guest = self.guest.get_or_try_init(|| open).await?;
        if guest.run.is_cancelled() {
            return Err(self.ended().await);
        }
        Ok((guest, login))
    }

    /// Why the run is over.
    pub(crate) async fn ended(&self) -> ServeError {
        match self.login() {
            Ok((access, login)) => {
                let why = self.host.farewell(access, &login.sandbox).await;
                ServeError::Ended(format!("sandbox {} {why}", login.sandbox))
            }
            Err(error) => error,
        }
    }

    /// Keeps the sandbox alive while the client is there, and sends the client away when
    /// the run ends.
    async fn follow(self: Arc<Self>, guest: Guest) {
        let Ok((access, login)) = self.login() else {
            return;
        };
        loop {
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return,
                () = guest.run.cancelled() => break,
                () = sleep(KEEP_EVERY) => self.host.keep(access, &login.sandbox).await,
            }
        }
        let why = self.ended().await.to_string();
        self.finish().await;
        self.leave(why).await;
    }

    /// Sends the client away.
    pub(crate) async fn leave(&self, why: String) {
        if let Some(handle) = self.handle.get() {
            let reason = Disconnect::ByApplication;
            let told = handle.disconnect(reason, why, "en".to_owned());
            // One that does not read is not told.
            let _told = tokio::time::timeout(LEAVE, told).await;
            tokio::select! {
                () = self.cut.cancelled() => {}
                () = sleep(LEAVE) => {}
            }
        }
        self.cut.cancel();
    }
}

/// Serves the requests of one client.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    /// Given back once somebody is let in.
    unknown: Option<Place>,
    teams: Counts<TeamId>,
    /// Places in the counts of the teams.
    places: Vec<Place>,
    listeners: HashMap<(String, u32), CancellationToken>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        for listener in self.listeners.values() {
            listener.cancel();
        }
        self.shared.channels.clear();
    }
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, unknown: Place, teams: Counts<TeamId>) -> Self {
        Self {
            shared,
            unknown: Some(unknown),
            teams,
            places: Vec::new(),
            listeners: HashMap::new(),
        }
    }

    fn let_in(&mut self, user: &str, access: Access) -> Auth {
        for team in &access.teams {
            match self.teams.take(team, MAX_OF_TEAM) {
                Some(place) => self.places.push(place),
                None => {
                    info!(team_id = %team, "too many SSH connections");
                    return Auth::reject();
                }
            }
        }
        self.unknown = None;
        let identity = Identity {
            access,
            login: Login::parse(user),
        };
        // Nobody is let in twice.
        let _first = self.shared.identity.set(identity);
        Auth::Accept
    }

    async fn key(&self, key: &russh::keys::PublicKey, is_proven: bool) -> Option<Access> {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let found = self.shared.host.public_key(&fingerprint, is_proven).await;
        // A failure was told where it happened.
        found.ok().flatten()
    }

    fn run(
        &self,
        id: ChannelId,
        wanted: Result<Wanted, ServeError>,
        session: &mut Session,
    ) -> bool {
        let Some((waiting, feed)) = self.shared.channels.begin(id) else {
            return false;
        };
        self.shared.handle.get_or_init(|| session.handle());
        let shared = Arc::clone(&self.shared);
        self.shared
            .sessions
            .spawn(session::serve(shared, waiting, feed, wanted));
        true
    }
}

fn answer(session: &mut Session, id: ChannelId, is_done: bool) -> Result<(), russh::Error> {
    if is_done {
        session.channel_success(id)
    } else {
        session.channel_failure(id)
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(match self.key(offer.public_key, false).await {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, russh::Error> {
        Ok(match self.key(key.public_key, true).await {
            Some(access) => self.let_in(user, access),
            None => Auth::reject(),
        })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        let found = self.shared.host.password(password.trim()).await;
        Ok(match found.ok().flatten() {
            Some(access) => self.let_in(user, access),
            None => Auth::reject(),
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        self.shared.handle.get_or_init(|| session.handle());
        if let Ok((access, login)) = self.shared.login() {
            info!(sandbox_id = %login.sandbox, teams = ?access.teams, ends = %self.shared.ends,
                "SSH connection");
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if self.shared.channels.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        // What arrives is taken by `data` below: through the channel it would be waited for.
        let (_, write) = channel.split();
        self.shared.channels.wait(write);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        if self.shared.channels.is_full() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let (_, write) = channel.split();
        let feed = self.shared.channels.serve(write.id());
        let target = forward::Target {
            host: host.to_owned(),
            port,
        };
        let shared = Arc::clone(&self.shared);
        self.shared
            .sessions
            .spawn(forward::direct(shared, target, write, feed, reply));
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shared.channels.confirm(id);
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shared
            .channels
            .data(id, data, &self.shared.undelivered);
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        self.shared.undelivered.window()
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.channels.eof(id);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.channels.remove(id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let done = self
            .shared
            .channels
            .prepare(id, |wanted| wanted.set_terminal(term, columns, rows, modes));
        answer(session, id, done.is_some())
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(id)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let done = self
            .shared
            .channels
            .prepare(id, |wanted| wanted.set(name, value));
        answer(session, id, done == Some(true))
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let done = self.run(id, Ok(Wanted::Shell), session);
        answer(session, id, done)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let wanted = match str::from_utf8(data) {
            Ok(line) => Ok(Wanted::Line(line.to_owned())),
            Err(_) => Err(ServeError::NotText),
        };
        let done = self.run(id, wanted, session);
        answer(session, id, done)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let done = name == "sftp" && self.run(id, Ok(Wanted::Sftp), session);
        answer(session, id, done)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let terminal = command::terminal(columns, rows);
        self.shared.channels.resize(id, terminal);
        Ok(())
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shared.channels.signal(id, signal);
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, russh::Error> {
        let Ok(wanted) = u16::try_from(*port) else {
            return Ok(false);
        };
        if self.listeners.len() >= MAX_LISTENERS {
            return Ok(false);
        }
        let handle = self.shared.handle.get_or_init(|| session.handle()).clone();
        let listener = match forward::listen(&self.shared, address, wanted).await {
            Ok(listener) => listener,
            Err(error) => {
                debug!(%error, "no port was forwarded");
                return Ok(false);
            }
        };
        *port = listener.port.into();
        let stop = self.shared.cut.child_token();
        self.listeners
            .insert((address.to_owned(), *port), stop.clone());
        let serving = forward::accept(
            Arc::clone(&self.shared),
            listener,
            address.to_owned(),
            handle,
            stop,
        );
        self.shared.tasks.spawn(serving);
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, russh::Error> {
        let listener = self.listeners.remove(&(address.to_owned(), port));
        Ok(listener.map(|stop| stop.cancel()).is_some())
    }
}
