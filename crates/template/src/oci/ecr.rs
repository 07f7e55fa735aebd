//! Signing in to AWS's registry: an account's keys, exchanged for a token of the registry.
//!
//! One request with a signature of version 4, which is a handful of HMACs; AWS's own client
//! would bring some sixty crates for it.

use std::time::Duration;

use base64::Engine;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use warren_service::Secret;

const SERVICE: &str = "ecr";
const ACTION: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const JSON: &str = "application/x-amz-json-1.1";
const BODY: &str = "{}";
const SIGNED: &str = "content-type;host;x-amz-date;x-amz-target";
const LIMIT: Duration = Duration::from_secs(30);
/// Tokens have some 2 KiB.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest name of a region; the longest there is has 14 characters.
const MAX_REGION: usize = 32;

/// An account's keys and the region of its registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) id: &'a str,
    pub(crate) secret: &'a Secret,
    pub(crate) region: &'a str,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EcrError {
    #[error("{0:?} is no AWS region")]
    Region(String),
    #[error("{0:?} is no address")]
    Endpoint(String),
    #[error("ask AWS for a token")]
    Send(#[source] reqwest::Error),
    #[error("AWS refuses the keys: {0}")]
    Refused(String),
    #[error("AWS answers with status {0}")]
    Status(u16),
    #[error("AWS's answer holds no token")]
    NoToken,
}

/// User and password for the registry. `endpoint` is asked instead of the region's own.
pub(crate) async fn sign_in(
    endpoint: Option<&str>,
    keys: Keys<'_>,
) -> Result<(String, String), EcrError> {
    let url = address(endpoint, keys.region)?;
    let host = authority(&url);
    let date = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(LIMIT)
        .user_agent(concat!("warren/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(EcrError::Send)?;
    let sent = client
        .post(url)
        .header(HOST, &host)
        .header(CONTENT_TYPE, JSON)
        .header("x-amz-date", &date)
        .header("x-amz-target", ACTION)
        .header(AUTHORIZATION, authorization(keys, &host, &date))
        .body(BODY)
        .send();
    let mut answer = sent.await.map_err(EcrError::Send)?;
    let status = answer.status();
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(EcrError::Send)? {
        text.extend_from_slice(&piece);
        if text.len() > MAX_ANSWER {
            return Err(EcrError::NoToken);
        }
    }
    if !status.is_success() {
        return Err(refusal(status.as_u16(), &text));
    }
    credentials(&text).ok_or(EcrError::NoToken)
}

fn address(endpoint: Option<&str>, region: &str) -> Result<Url, EcrError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || region.len() > MAX_REGION || !region.bytes().all(is_letter) {
        return Err(EcrError::Region(region.to_owned()));
    }
    let text = match endpoint {
        Some(text) => text.to_owned(),
        None => {
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            format!("https://api.ecr.{region}.amazonaws.com{suffix}/")
        }
    };
    let mut url: Url = text.parse().map_err(|_| EcrError::Endpoint(text.clone()))?;
    if url.host_str().is_none() {
        return Err(EcrError::Endpoint(text));
    }
    // What is signed is the root.
    url.set_path("/");
    Ok(url)
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

/// Signs a text for one day, region and service.
fn signature(secret: &Secret, (day, region, service): (&str, &str, &str), text: &str) -> String {
    // What signs is derived from the secret itself.
    let first = format!("AWS4{}", secret.expose());
    let scoped = [day, region, service, "aws4_request"]
        .into_iter()
        .fold(first.into_bytes(), |key, part| hmac(&key, part));
    hex::encode(hmac(&scoped, text))
}

fn authorization(keys: Keys<'_>, host: &str, date: &str) -> String {
    let day = date.split('T').next().unwrap_or_default();
    let request = format!(
        "POST\n/\n\ncontent-type:{JSON}\nhost:{host}\nx-amz-date:{date}\n\
         x-amz-target:{ACTION}\n\n{SIGNED}\n{}",
        digest(BODY)
    );
    let scope = format!("{day}/{}/{SERVICE}/aws4_request", keys.region);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", digest(&request));
    let signature = signature(keys.secret, (day, keys.region, SERVICE), &text);
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={SIGNED}, Signature={signature}",
        keys.id
    )
}

fn refusal(status: u16, text: &[u8]) -> EcrError {
    #[derive(Deserialize)]
    struct Fault {
        #[serde(rename = "__type")]
        kind: String,
    }
    let known = |kind: &str| {
        let is_name = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then(|| kind.to_owned())
    };
    let fault: Option<Fault> = serde_json::from_slice(text).ok();
    let kind = fault.and_then(|fault| known(fault.kind.rsplit('#').next()?));
    match kind {
        Some(kind) if (400..500).contains(&status) => EcrError::Refused(kind),
        _ if matches!(status, 401 | 403) => EcrError::Refused(format!("status {status}")),
        _ => EcrError::Status(status),
    }
}

fn credentials(text: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        authorization_token: String,
    }
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let token = answer.authorization_data.into_iter().next()?;
    let pair = base64::engine::general_purpose::STANDARD.decode(token.authorization_token);
    let pair = String::from_utf8(pair.ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_published_example() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned());
        let text = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                    f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
        assert_eq!(
            signature(&secret, ("20150830", "us-east-1", "iam"), text),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn a_region_is_no_way_to_another_host() {
        let of = |region| address(None, region).map(|url| url.to_string()).ok();
        let expected = "https://api.ecr.eu-west-1.amazonaws.com/";
        assert_eq!(of("eu-west-1").as_deref(), Some(expected));
        let expected = "https://api.ecr.cn-north-1.amazonaws.com.cn/";
        assert_eq!(of("cn-north-1").as_deref(), Some(expected));
        for bad in ["", "x.evil.example/", "eu_west", "EU-WEST-1", "a@b"] {
            assert!(of(bad).is_none(), "{bad}");
        }
        assert_eq!(of(&"a".repeat(33)), None);
        let url = address(Some("http://127.0.0.1:99/path"), "eu-west-1").unwrap();
        assert_eq!(
            (url.path(), authority(&url).as_str()),
            ("/", "127.0.0.1:99")
        );
    }

    #[test]
    fn answers_that_are_none_give_nothing() {
        let token = |text: &str| {
            let token = base64::engine::general_purpose::STANDARD.encode(text);
            format!("{{\"authorizationData\":[{{\"authorizationToken\":\"{token}\"}}]}}")
        };
        let expected = Some(("AWS".to_owned(), "p:q".to_owned()));
        assert_eq!(credentials(token("AWS:p:q").as_bytes()), expected);
        for bad in [token("AWS"), "{}".to_owned(), "[".to_owned()] {
            assert_eq!(credentials(bad.as_bytes()), None, "{bad}");
        }
        let fault = br#"{"__type":"com.amazon#UnrecognizedClientException","message":"x"}"#;
        let told = refusal(400, fault).to_string();
        assert_eq!(told, "AWS refuses the keys: UnrecognizedClientException");
        assert!(matches!(refusal(500, fault), EcrError::Status(500)));
        assert!(matches!(refusal(403, b""), EcrError::Refused(_)));
    }
}
