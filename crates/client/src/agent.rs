//! Calls of the agent inside a sandbox.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use http::{Method, StatusCode};
use reqwest::{RequestBuilder, Response};
use warren_connect::{
    Codec, Message, StreamDecoder, StreamItem, TIMEOUT_HEADER, VERSION_HEADER, decode_unary,
    format_timeout, stream_request, unary_error,
};

use crate::client::Client;
use crate::error::Error;
use crate::http::{ANSWER_LIMIT, body, join, send};

/// Longest message of a stream; the agent sends far shorter ones.
const MESSAGE_LIMIT: usize = 4 << 20;

/// The way to one sandbox's agent.
#[derive(Clone)]
pub(crate) struct Agent {
    client: Client,
    sandbox_id: String,
    port: u16,
    token: Option<String>,
    /// Of a sandbox whose ports are not public.
    traffic_token: Option<String>,
    user: Option<String>,
}

impl Agent {
    pub(crate) fn new(
        client: Client,
        sandbox_id: String,
        port: u16,
        token: Option<String>,
        traffic_token: Option<String>,
    ) -> Self {
        Self {
            client,
            sandbox_id,
            port,
            token,
            traffic_token,
            user: None,
        }
    }

    /// Acts as another user of the sandbox than its default one.
    pub(crate) fn with_user(mut self, user: Option<String>) -> Self {
        self.user = user;
        self
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.client.shared.config.request_timeout
    }

    /// A request that reaches the agent and that it accepts.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let shared = &self.client.shared;
        let mut request = shared
            .http
            .request(method, join(&shared.sandbox_url, path))
            .header("e2b-sandbox-id", &self.sandbox_id)
            .header("e2b-sandbox-port", self.port.to_string());
        if let Some(token) = &self.token {
            request = request.header("x-access-token", token);
        }
        if let Some(token) = &self.traffic_token {
            request = request.header("e2b-traffic-access-token", token);
        }
        request
    }

    fn rpc(&self, service: &str, method: &str, content_type: &str) -> RequestBuilder {
        let mut request = self
            .request(Method::POST, &[service, method])
            .header(VERSION_HEADER, "1")
            .header(http::header::CONTENT_TYPE, content_type);
        if let Some(user) = &self.user {
            let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:"));
            request = request.header(http::header::AUTHORIZATION, format!("Basic {credentials}"));
        }
        request
    }

    /// Calls a method that answers once.
    pub(crate) async fn unary<Q: Message, A: Message>(
        &self,
        operation: &'static str,
        service: &str,
        method: &str,
        message: &Q,
    ) -> Result<A, Error> {
        let failed = |source| Error::Agent { operation, source };
        let encoded = Codec::Json.encode(message).map_err(failed)?;
        let request = self
            .rpc(service, method, "application/json")
            .timeout(self.request_timeout())
            .body(encoded);
        let response = send(operation, request).await?;
        let status = response.status();
        let body = body(operation, response, ANSWER_LIMIT).await?;
        decode_unary(Codec::Json, status, &body).map_err(failed)
    }

    /// Calls a method that answers with a stream.
    pub(crate) async fn stream<Q: Message>(
        &self,
        operation: &'static str,
        service: &str,
        method: &str,
        message: &Q,
        limit: Option<Duration>,
    ) -> Result<Messages, Error> {
        let failed = |source| Error::Agent { operation, source };
        let encoded = stream_request(Codec::Json, message).map_err(failed)?;
        let mut request = self
            .rpc(service, method, "application/connect+json")
            .body(encoded);
        if let Some(limit) = limit {
            request = request.header(TIMEOUT_HEADER, format_timeout(limit));
        }
        let response = send(operation, request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = body(operation, response, ANSWER_LIMIT).await?;
            return Err(failed(unary_error(status, &body)));
        }
        Ok(Messages {
            operation,
            response,
            decoder: StreamDecoder::new(Codec::Json, MESSAGE_LIMIT),
            ended: false,
        })
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("sandbox_id", &self.sandbox_id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The messages of a stream.
#[derive(Debug)]
pub(crate) struct Messages {
    operation: &'static str,
    response: Response,
    decoder: StreamDecoder,
    ended: bool,
}

impl Messages {
    /// Waits for the next message; `None` after the last. Cancel-safe: bytes that arrived
    /// are kept.
    pub(crate) async fn next<M: Message>(&mut self) -> Result<Option<M>, Error> {
        let operation = self.operation;
        while !self.ended {
            let item = self
                .decoder
                .next_item()
                .map_err(|source| Error::Agent { operation, source });
            match item {
                Ok(Some(StreamItem::Message(message))) => return Ok(Some(message)),
                Ok(Some(StreamItem::End)) => self.ended = true,
                Ok(None) => {
                    let chunk = self
                        .response
                        .chunk()
                        .await
                        .map_err(|source| Error::Transport { operation, source })?;
                    match chunk {
                        Some(chunk) => self.decoder.push(&chunk),
                        None => {
                            self.ended = true;
                            return Err(Error::Cut { operation });
                        }
                    }
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}
