//! Sandboxes set aside, gone on with and copied, and what they may reach.

use std::time::Duration;

use http::{Method, StatusCode};
use warren_wire::{Fork, ForkResult, NetworkUpdate};

use crate::client::{Client, PAUSE_TIMEOUT, seconds};
use crate::error::Error;
use crate::http::{ANSWER_LIMIT, body, call, json, refusal, send};
use crate::sandbox::Sandbox;
use crate::snapshots::Snapshot;

impl Client {
    /// Copies a running sandbox, with its processes and their memory, `count` times (1 to
    /// 100). The copies live for `timeout`. Each entry is a copy, or why it was not made.
    ///
    /// ```no_run
    /// # async fn example(client: warren_client::Client) -> Result<(), warren_client::Error> {
    /// use std::time::Duration;
    ///
    /// for copy in client.fork("i0123456789abcdefghij", 3, Duration::from_secs(60)).await? {
    ///     println!("{}", copy?.id());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox, 409 if it is not running, 400 for a
    /// count or a time-out that the server does not take.
    pub async fn fork(
        &self,
        sandbox_id: &str,
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<Result<Sandbox, Error>>, Error> {
        const OPERATION: &str = "fork a sandbox";
        let asked = Fork {
            count: Some(i32::try_from(count).unwrap_or(i32::MAX)),
            timeout: Some(seconds(timeout)),
        };
        // Their state may be long in the writing.
        let request = self
            .post(&["sandboxes", sandbox_id, "fork"], &asked)
            .timeout(PAUSE_TIMEOUT);
        let copies: Vec<ForkResult> = json(OPERATION, call(OPERATION, request).await?).await?;
        let copies = copies.into_iter().map(|copy| match copy {
            ForkResult::Sandbox(wire) => Ok(Sandbox::new(self.clone(), *wire)),
            ForkResult::Error(error) => Err(Error::Refused {
                operation: OPERATION,
                status: StatusCode::from_u16(error.code)
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                message: error.message,
            }),
        });
        Ok(copies.collect())
    }

    /// Replaces what a sandbox may reach.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox, 400 for rules that make no sense.
    pub async fn set_network(&self, sandbox_id: &str, to: &NetworkUpdate) -> Result<(), Error> {
        let request = self.request(Method::PUT, &["sandboxes", sandbox_id, "network"]);
        call("set the network of a sandbox", request.json(to)).await?;
        Ok(())
    }
}

impl Sandbox {
    /// Whether it runs and its agent answers.
    ///
    /// # Errors
    /// [`Error::Transport`] if the server is not reached; [`Error::Refused`] if it refuses.
    pub async fn is_running(&self) -> Result<bool, Error> {
        const OPERATION: &str = "ask whether a sandbox runs";
        let agent = self.agent();
        let request = agent
            .request(Method::GET, &["health"])
            .timeout(agent.request_timeout());
        let response = send(OPERATION, request).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            // The edge answers so for a sandbox that is paused, or gone.
            StatusCode::BAD_GATEWAY | StatusCode::NOT_FOUND => Ok(false),
            status => {
                let body = body(OPERATION, response, ANSWER_LIMIT).await?;
                Err(refusal(OPERATION, status, &body))
            }
        }
    }

    /// As [`Client::pause`], with its memory.
    ///
    /// # Errors
    /// As [`Client::pause`].
    pub async fn pause(&self) -> Result<bool, Error> {
        self.client().pause(self.id(), true).await
    }

    /// Goes on with it if it is paused, and lets it live for at least `timeout`. As
    /// [`Client::connect`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn resume(&self, timeout: Duration) -> Result<Self, Error> {
        self.client().connect(self.id(), timeout).await
    }

    /// As [`Client::fork`].
    ///
    /// # Errors
    /// As [`Client::fork`].
    pub async fn fork(
        &self,
        count: u32,
        timeout: Duration,
    ) -> Result<Vec<Result<Self, Error>>, Error> {
        self.client().fork(self.id(), count, timeout).await
    }

    /// As [`Client::snapshot`].
    ///
    /// # Errors
    /// As [`Client::snapshot`].
    pub async fn snapshot(&self, name: Option<&str>) -> Result<Snapshot, Error> {
        self.client().snapshot(self.id(), name).await
    }

    /// As [`Client::set_network`].
    ///
    /// # Errors
    /// As [`Client::set_network`].
    pub async fn set_network(&self, to: &NetworkUpdate) -> Result<(), Error> {
        self.client().set_network(self.id(), to).await
    }
}
