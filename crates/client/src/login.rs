//! Signing in as a person: what a browser's sign-in gave is kept fresh, used and revoked.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_wire::Team;

use crate::client::CONNECT_TIMEOUT;
use crate::error::Error;
use crate::http::{ANSWER_LIMIT, base_url, body, call, join, json, refusal, send};

/// A token this near to its end is taken for expired.
const SKEW_SECONDS: i64 = 60;

/// Where a sign-in is refreshed and revoked, as the server told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuth {
    /// URL that gives fresh tokens.
    pub token_endpoint: String,
    /// URL that ends the sign-in.
    pub revoke_endpoint: String,
    /// Name of this program there.
    pub client_id: String,
}

/// The tokens of a sign-in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Shown with requests.
    pub access_token: String,
    /// Exchanged for fresh ones.
    pub refresh_token: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens { .. }")
    }
}

impl Tokens {
    /// Whether the access token has to be refreshed before use. A token that does not tell
    /// when it ends has to be.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        let ends = self.access_token.split('.').nth(1).and_then(ends_at);
        ends.is_none_or(|ends| now.as_second() >= ends.saturating_sub(SKEW_SECONDS))
    }
}

/// The end that the claims of a JSON web token name, in seconds since the epoch.
fn ends_at(claims: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let text = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&text)
        .ok()
        .map(|claims| claims.exp)
}

#[derive(Deserialize)]
struct Fresh {
    access_token: String,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct OAuthError {
    error: String,
}

/// A client for what a person does without an API key.
#[derive(Debug, Clone)]
pub struct Login {
    http: reqwest::Client,
}

impl Login {
    /// Makes a client. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn new() -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CONNECT_TIMEOUT * 3)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Setup)?;
        Ok(Self { http })
    }

    /// The teams of the person, each with a fresh API key.
    ///
    /// # Errors
    /// [`Error`]; status 401 if the token is not valid.
    pub async fn teams(&self, api_url: &str, access_token: &str) -> Result<Vec<Team>, Error> {
        const OPERATION: &str = "list projects";
        let url = join(&base_url(api_url)?, &["teams"]);
        let request = self.http.get(url).bearer_auth(access_token);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Exchanges the refresh token; `None` if the sign-in has ended.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn refresh(&self, oauth: &OAuth, tokens: &Tokens) -> Result<Option<Tokens>, Error> {
        const OPERATION: &str = "refresh the sign-in";
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
            ("client_id", &oauth.client_id),
        ];
        let request = self.http.post(base_url(&oauth.token_endpoint)?).form(&form);
        let response = send(OPERATION, request).await?;
        let status = response.status();
        if status.is_success() {
            let fresh: Fresh = json(OPERATION, response).await?;
            let kept = || tokens.refresh_token.clone();
            return Ok(Some(Tokens {
                access_token: fresh.access_token,
                refresh_token: fresh.refresh_token.unwrap_or_else(kept),
            }));
        }
        let body = body(OPERATION, response, ANSWER_LIMIT).await?;
        match serde_json::from_slice::<OAuthError>(&body) {
            Ok(told) if told.error == "invalid_grant" && status == StatusCode::BAD_REQUEST => {
                Ok(None)
            }
            _ => Err(refusal(OPERATION, status, &body)),
        }
    }

    /// Ends the sign-in at the server.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(&self, oauth: &OAuth, tokens: &Tokens) -> Result<(), Error> {
        let form = [
            ("token", tokens.refresh_token.as_str()),
            ("token_type_hint", "refresh_token"),
            ("client_id", &oauth.client_id),
        ];
        let url = base_url(&oauth.revoke_endpoint)?;
        call("revoke the sign-in", self.http.post(url).form(&form)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(access_token: &str) -> Tokens {
        Tokens {
            access_token: access_token.to_owned(),
            refresh_token: "r".to_owned(),
        }
    }

    #[test]
    fn a_token_tells_when_it_ends_or_counts_as_ended() {
        let claims = URL_SAFE_NO_PAD.encode(br#"{"exp":1000}"#);
        let token = tokens(&format!("h.{claims}.s"));
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!token.is_expired(at(939)));
        assert!(token.is_expired(at(940)));
        for untold in ["sk_e2b_00", "a.b.c", "a.e30.c", ""] {
            assert!(tokens(untold).is_expired(at(0)), "{untold}");
        }
    }

    #[test]
    fn tokens_are_not_shown() {
        assert!(!format!("{:?}", tokens("secret")).contains("secret"));
    }
}
