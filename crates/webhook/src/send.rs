//! One try of a delivery.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use url::Url;
use warren_service::Secret;

use crate::address::{UrlError, check_url, is_public};
use crate::sign::{SIGNATURE, TIMED_SIGNATURE, plain, timed};

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Settings of a [`Sender`].
#[derive(Debug, Clone, Copy)]
pub struct SenderConfig {
    /// Send to addresses of the operator's network and of this host, too.
    pub allow_private: bool,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Time for all of a try.
    pub timeout: Duration,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            allow_private: false,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

/// The sender could not be made.
#[derive(Debug, thiserror::Error)]
#[error("prepare the delivery of webhooks")]
pub struct SetupError(#[source] reqwest::Error);

/// Why a receiver did not take an event.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing can be sent to its URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// It answered, and did not say yes.
    #[error("the answer was {0}")]
    Refused(u16),
}

impl SendError {
    /// Status of the answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(*status),
            _ => None,
        }
    }
}

/// An event on its way.
#[derive(Debug)]
pub struct Message<'a> {
    /// Where to.
    pub url: &'a str,
    /// What, in JSON.
    pub body: Vec<u8>,
    /// What to sign it with.
    pub secret: &'a Secret,
    /// Names the webhook.
    pub webhook_id: String,
    /// Names the delivery: the same for every try of it.
    pub delivery_id: String,
}

/// Sends events.
#[derive(Debug, Clone)]
pub struct Sender {
    client: reqwest::Client,
    allow_private: bool,
}

impl Sender {
    /// Makes a sender.
    ///
    /// # Errors
    /// [`SetupError`] when this host has no certificates to check receivers with.
    pub fn new(config: SenderConfig) -> Result<Self, SetupError> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("warren-webhook/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            // A proxy would connect where we could not check.
            .no_proxy()
            .referer(false)
            .http1_only()
            .connect_timeout(config.connect_timeout)
            .timeout(config.timeout)
            .pool_max_idle_per_host(0)
            .dns_resolver(Arc::new(Resolver {
                allow_private: config.allow_private,
            }))
            .build()
            .map_err(SetupError)?;
        Ok(Self {
            client,
            allow_private: config.allow_private,
        })
    }

    /// Whether private addresses are sent to.
    #[must_use]
    pub fn allows_private(&self) -> bool {
        self.allow_private
    }

    /// Sends once. An answer of 200 to 299 means that the event was taken; its body is not
    /// read.
    ///
    /// # Errors
    /// [`SendError`]
    pub async fn send(&self, message: Message<'_>) -> Result<u16, SendError> {
        let url: Url = check_url(message.url, self.allow_private)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs());
        let answer = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("e2b-webhook-id", message.webhook_id)
            .header("e2b-delivery-id", message.delivery_id)
            .header("e2b-signature-version", "v1")
            .header(SIGNATURE, plain(message.secret, &message.body))
            .header(TIMED_SIGNATURE, timed(message.secret, now, &message.body))
            .body(message.body)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let status = answer.status();
        if status.is_success() {
            Ok(status.as_u16())
        } else {
            Err(SendError::Refused(status.as_u16()))
        }
    }
}

/// Says what happened in our words, for those of the client hold addresses.
fn failed(error: &reqwest::Error) -> SendError {
    if error.is_timeout() {
        return SendError::Timeout;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(lookup) = error.downcast_ref::<LookupError>() {
            return SendError::Connection(lookup.to_string());
        }
        cause = error.source();
    }
    let text = if error.is_connect() {
        "no connection"
    } else {
        "the connection broke before there was an answer"
    };
    SendError::Connection(text.to_owned())
}

#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("the name has no address")]
    Unknown,
    #[error("the name leads to a private address, which this server does not allow")]
    Private,
}

/// Looks names up and leaves out what is not public. The addresses that it returns are those
/// that are connected to: nobody can change them in between.
#[derive(Debug)]
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found: Vec<SocketAddr> = found.map_err(|_| LookupError::Unknown)?.collect();
            if found.is_empty() {
                return Err(LookupError::Unknown.into());
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| allow_private || is_public(address.ip()))
                .take(MAX_ADDRESSES)
                .collect();
            if allowed.is_empty() {
                return Err(LookupError::Private.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request with `answer` and returns what was asked.
    fn receiver(answer: &'static str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let thread = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"{}") {
                let mut buffer = [0; 4096];
                let read = socket.read(&mut buffer).unwrap();
                assert!(read > 0);
                got.extend_from_slice(&buffer[..read]);
            }
            socket.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(got).unwrap()
        });
        (url, thread)
    }

    fn message<'a>(url: &'a str, secret: &'a Secret) -> Message<'a> {
        Message {
            url,
            body: b"{}".to_vec(),
            secret,
            webhook_id: "w".to_owned(),
            delivery_id: "d".to_owned(),
        }
    }

    fn sender(allow_private: bool) -> Sender {
        Sender::new(SenderConfig {
            allow_private,
            timeout: Duration::from_millis(500),
            ..SenderConfig::default()
        })
        .unwrap()
    }

    #[tokio::test]
    async fn an_event_arrives_signed() {
        let secret = Secret::new("s".to_owned());
        let (url, got) = receiver("HTTP/1.1 202 Accepted\r\ncontent-length: 999\r\n\r\n");
        let status = sender(true).send(message(&url, &secret)).await.unwrap();
        assert_eq!(status, 202, "the body of the answer is not waited for");
        let got = got.join().unwrap();
        assert!(got.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{got}");
        let header = |name: &str| {
            let line = got.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {got}")).to_owned()
        };
        assert_eq!(header("e2b-signature: "), plain(&secret, b"{}"));
        assert_eq!(header("e2b-webhook-id: "), "w");
        assert_eq!(header("e2b-delivery-id: "), "d");
        let signature = header("warren-signature: ");
        let at = signature[2..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(signature, timed(&secret, at, b"{}"));
    }

    #[tokio::test]
    async fn redirects_are_answers_like_any_other() {
        let secret = Secret::new("s".to_owned());
        let (url, got) = receiver("HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:1/\r\n\r\n");
        let error = sender(true).send(message(&url, &secret)).await.unwrap_err();
        assert_eq!(error.status(), Some(307));
        got.join().unwrap();
    }

    #[tokio::test]
    async fn a_silent_receiver_is_given_up() {
        let secret = Secret::new("s".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = sender(true).send(message(&url, &secret)).await.unwrap_err();
        assert!(matches!(error, SendError::Timeout), "{error:?}");
    }

    #[tokio::test]
    async fn private_addresses_are_not_even_connected_to() {
        let secret = Secret::new("s".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/");
        let error = sender(false)
            .send(message(&url, &secret))
            .await
            .unwrap_err();
        assert!(
            matches!(error, SendError::Url(UrlError::Private)),
            "{error:?}"
        );
        assert!(listener.accept().is_err(), "nobody came");
    }

    #[tokio::test]
    async fn names_that_lead_to_private_addresses_are_refused() {
        let resolver = Resolver {
            allow_private: false,
        };
        let refused = resolver.resolve("localhost".parse().unwrap()).await;
        let error = refused.err().expect("localhost is private");
        assert!(error.to_string().contains("private address"), "{error}");
    }
}
