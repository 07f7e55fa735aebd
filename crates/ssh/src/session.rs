//! A session channel: a process in the sandbox, joined with the client.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use russh::server::Msg;
use russh::{ChannelWriteHalf, Sig};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::debug;
use warren_connect::process::Pty;
use warren_service::Chain;

use crate::agent::{Agent, AgentError, Event, Process};
use crate::channels::{Feed, Input, Waiting};
use crate::command::Wanted;
use crate::connection::{ServeError, Shared};
use crate::signal::{Ending, ending, kill_name};

/// Number of the channel's stream for errors.
const STDERR: u32 = 1;
/// Exit code of what could not be served; that of `ssh` itself for its own failures.
const NOT_SERVED: u32 = 255;
/// How long a client gets to take the last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long the end of a run may be told after its connections were cut.
const RUN_END: Duration = Duration::from_secs(2);
/// How long a process gets to be told that its client hung up.
const HANG_UP: Duration = Duration::from_secs(5);

/// What became of a session.
enum Outcome {
    Ended(Ending),
    /// The client closed the channel or went away.
    HungUp,
}

/// Serves a session channel to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    waiting: Waiting,
    feed: Feed,
    wanted: Result<Wanted, ServeError>,
) {
    let Waiting { write, preparation } = waiting;
    let hung_up = feed.hung_up.clone();
    let result = match wanted {
        Ok(Wanted::Sftp) if preparation.terminal.is_some() => Err(ServeError::NotText),
        Ok(wanted) => {
            let has_terminal = preparation.terminal.is_some();
            let program = preparation.program(wanted, &shared.ends);
            let session = Session {
                shared: &shared,
                write: &write,
                has_terminal,
            };
            session.run(program, feed).await
        }
        Err(error) => Err(error),
    };
    let last_words = tell(&shared, &write, result);
    tokio::select! {
        () = hung_up.cancelled() => {}
        _ = timeout(LAST_WORDS, last_words) => {}
    }
    // A connection that has gone needs no end of its channels.
    let _gone = timeout(LAST_WORDS, async {
        write.eof().await?;
        write.close().await
    })
    .await;
    shared.channels.remove(write.id());
}

/// Tells the client how it ended.
async fn tell(
    shared: &Shared,
    write: &ChannelWriteHalf<Msg>,
    result: Result<Outcome, ServeError>,
) -> Result<(), russh::Error> {
    match result {
        Ok(Outcome::HungUp) => Ok(()),
        Ok(Outcome::Ended(Ending::Code(code))) => write.exit_status(code).await,
        Ok(Outcome::Ended(Ending::Signal {
            name,
            core_dumped,
            text,
        })) => {
            if let Some(handle) = shared.handle.get() {
                let language = String::new();
                handle
                    .exit_signal_request(write.id(), name, core_dumped, text, language)
                    .await
                    .map_err(|()| russh::Error::SendError)?;
            }
            Ok(())
        }
        Err(error) => {
            debug!(error = %Chain(&error), "an SSH session was not served");
            let text = format!("warren: {error}\r\n");
            write.extended_data_bytes(STDERR, text).await?;
            write.exit_status(NOT_SERVED).await
        }
    }
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    write: &'a ChannelWriteHalf<Msg>,
    has_terminal: bool,
}

impl Session<'_> {
    async fn run(&self, program: crate::agent::Program, feed: Feed) -> Result<Outcome, ServeError> {
        let (guest, login) = self.shared.guest().await?;
        let tasks = self.shared.tasks.clone();
        let agent = Agent::new(guest.clone(), login.user.clone(), tasks);
        let result = tokio::select! {
            biased;
            () = guest.run.cancelled() => return Err(self.shared.ended().await),
            process = agent.start(program) => match process {
                Ok(process) => self.join(&agent, process, feed, &guest.run).await,
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(outcome) => Ok(outcome),
            Err(error @ AgentError::Refused(_)) => Err(error.into()),
            // The usual cause is the end of the run, whose connections are cut first.
            Err(error) => match timeout(RUN_END, guest.run.cancelled()).await {
                Ok(()) => Err(self.shared.ended().await),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// Joins client and process until either ends.
    async fn join(
        &self,
        agent: &Agent,
        mut process: Process,
        feed: Feed,
        run: &warren_service::CancellationToken,
    ) -> Result<Outcome, AgentError> {
        let Feed {
            inputs,
            sizes,
            signals,
            hung_up,
        } = feed;
        let pid = process.pid;
        let aside = async {
            tokio::join!(
                self.pass_input(agent, pid, inputs),
                self.pass_sizes(agent, pid, sizes),
                self.pass_signals(agent, pid, signals),
            );
            pending::<Infallible>().await
        };
        let outcome = tokio::select! {
            biased;
            () = run.cancelled() => return Err(AgentError::Cut),
            () = hung_up.cancelled() => Outcome::HungUp,
            ending = self.pass_output(&mut process) => match ending? {
                Some(ending) => Outcome::Ended(ending),
                None => Outcome::HungUp,
            },
            never = aside => match never {},
        };
        if matches!(outcome, Outcome::HungUp) {
            // As when a terminal is closed; what runs in the background of a session without
            // one goes on.
            let told = agent.kill(pid, self.has_terminal, "HUP");
            let _told = timeout(HANG_UP, told).await;
        }
        Ok(outcome)
    }

    /// Passes on what the process writes, as fast as the client takes it. `None` if the
    /// client has gone.
    async fn pass_output(&self, process: &mut Process) -> Result<Option<Ending>, AgentError> {
        loop {
            let sent = match process.next().await? {
                Event::Stdout(bytes) => self.write.data_bytes(bytes).await,
                Event::Stderr(bytes) => self.write.extended_data_bytes(STDERR, bytes).await,
                Event::End(end) => return Ok(Some(ending(&end))),
            };
            if sent.is_err() {
                return Ok(None);
            }
        }
    }

    async fn pass_input(
        &self,
        agent: &Agent,
        pid: u32,
        mut inputs: mpsc::UnboundedReceiver<Input>,
    ) {
        let (sender, sending) = agent.input(pid, self.has_terminal);
        let feed = async move {
            let mut is_open = true;
            while let Some(Input::Data(held)) = inputs.recv().await {
                // What the process does not take any more is dropped.
                is_open = is_open && sender.send(held.bytes()).await;
            }
        };
        let ((), sent) = tokio::join!(feed, sending);
        if let Err(error) = sent {
            debug!(%error, "a process takes no more input");
        } else if !self.has_terminal
            && let Err(error) = agent.close_input(pid).await
        {
            debug!(%error, "the input of a process was not ended");
        }
    }

    async fn pass_sizes(&self, agent: &Agent, pid: u32, mut sizes: watch::Receiver<Option<Pty>>) {
        while self.has_terminal && sizes.changed().await.is_ok() {
            let size = *sizes.borrow_and_update();
            if let Some(size) = size
                && let Err(error) = agent.resize(pid, size).await
            {
                debug!(%error, "a terminal was not resized");
            }
        }
    }

    async fn pass_signals(&self, agent: &Agent, pid: u32, mut signals: mpsc::Receiver<Sig>) {
        while let Some(signal) = signals.recv().await {
            if let Some(name) = kill_name(&signal)
                && let Err(error) = agent.kill(pid, true, name).await
            {
                debug!(%error, name, "a signal was not sent");
            }
        }
    }
}
