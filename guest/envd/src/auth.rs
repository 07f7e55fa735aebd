//! Who may call what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use warren_connect::{Code, Error};

use crate::agent::Agent;
use crate::query::Query;
use crate::reply::RestError;
use crate::signature::{self, Operation};
use crate::users::{User, UserDb};

/// Header with the access token.
pub(crate) const TOKEN_HEADER: &str = "x-access-token";

/// Routes that check for themselves or need no check.
const EXEMPT: [(Method, &str); 4] = [
    (Method::GET, "/health"),
    (Method::GET, "/files"),
    (Method::POST, "/files"),
    (Method::POST, "/init"),
];

/// Checks the access token of a request.
///
/// # Errors
/// 401 when the sandbox has a token and the request carries another or none.
pub(crate) fn check_token(
    agent: &Agent,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), RestError> {
    if EXEMPT.iter().any(|(m, p)| m == method && *p == path) {
        return Ok(());
    }
    let settings = agent.settings();
    let Some(token) = &settings.token else {
        return Ok(());
    };
    match header(headers, TOKEN_HEADER) {
        Some(given) if token.matches(given) => Ok(()),
        _ => Err(RestError::unauthorized(
            "unauthorized access, please provide a valid access token or method signing if supported",
        )),
    }
}

/// Checks the token or the signature of a request for a file. `now` is in Unix seconds.
///
/// # Errors
/// 401 with the reason.
pub(crate) fn check_file_access(
    agent: &Agent,
    headers: &HeaderMap,
    query: &Query,
    operation: Operation,
    expiration: Option<i64>,
    now: i64,
) -> Result<(), RestError> {
    let settings = agent.settings();
    let Some(token) = &settings.token else {
        return Ok(());
    };
    if headers.contains_key(TOKEN_HEADER) {
        return match header(headers, TOKEN_HEADER) {
            Some(given) if token.matches(given) => Ok(()),
            _ => Err(RestError::unauthorized(
                "access token present in header but does not match",
            )),
        };
    }
    let given = query
        .get("signature")
        .ok_or_else(|| RestError::unauthorized("missing signature query parameter"))?;
    let path = query.get("path").unwrap_or_default();
    let username = query.get("username").unwrap_or_default();
    let expected = signature::sign(path, operation, username, token.expose(), expiration);
    if !signature::equal(&expected, given) {
        return Err(RestError::unauthorized("invalid signature"));
    }
    if expiration.is_some_and(|at| at < now) {
        return Err(RestError::unauthorized("signature is already expired"));
    }
    Ok(())
}

/// The user of an RPC: the name in Basic credentials, else the default user.
///
/// # Errors
/// `unauthenticated` when there is no such user.
pub(crate) fn rpc_user(agent: &Agent, headers: &HeaderMap) -> Result<User, Error> {
    let db = UserDb::load()
        .map_err(|e| Error::new(Code::Internal, format!("error reading users: {e}")))?;
    let unauthenticated = |message: String| Error::new(Code::Unauthenticated, message);
    match basic_name(headers) {
        Some(name) => db
            .find(&name)
            .ok_or_else(|| unauthenticated(format!("invalid username: '{name}'"))),
        None => {
            let name = agent.settings().default_user.clone();
            db.find(&name)
                .ok_or_else(|| unauthenticated(format!("invalid default user: '{name}'")))
        }
    }
}

/// The user of a REST request: the one it names, else the default user.
///
/// # Errors
/// 401 when there is no such user.
pub(crate) fn rest_user(agent: &Agent, name: Option<&str>) -> Result<User, RestError> {
    let name = match name {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => agent.settings().default_user.clone(),
    };
    let db =
        UserDb::load().map_err(|e| RestError::internal(format!("error reading users: {e}")))?;
    db.find(&name).ok_or_else(|| {
        RestError::unauthorized(format!(
            "error looking up user '{name}': user: unknown user {name}"
        ))
    })
}

/// The name in Basic credentials; other schemes and malformed ones count as none.
fn basic_name(headers: &HeaderMap) -> Option<String> {
    let value = header(headers, AUTHORIZATION.as_str())?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.0.to_owned())
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn basic_names_ignore_the_password() {
        let mut headers = HeaderMap::new();
        for (value, name) in [
            ("Basic cm9vdDo=", Some("root")),
            ("basic dTpw", Some("u")),
            ("Bearer x", None),
            ("Basic ???", None),
        ] {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(basic_name(&headers).as_deref(), name, "{value}");
        }
    }
}
