//! Who may reach a port: the pure comparison of tokens.

use http::HeaderMap;
use warren_service::Secret;
use warren_types::ENVD_PORT;

/// Carries the token of a sandbox without public traffic.
pub const TRAFFIC_ACCESS_TOKEN_HEADER: &str = "e2b-traffic-access-token";
/// Carries the agent's own token.
pub const ACCESS_TOKEN_HEADER: &str = "x-access-token";

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    Missing,
    Invalid,
}

/// The value of a token header that stands exactly once; empty counts as absent.
pub(crate) fn token<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, TokenError> {
    let mut values = headers.get_all(name).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(TokenError::Missing),
        (Some(value), None) => value.to_str().map_err(|_| TokenError::Invalid)?,
        (Some(_), Some(_)) => return Err(TokenError::Invalid),
    };
    if value.is_empty() {
        return Err(TokenError::Missing);
    }
    Ok(value)
}

/// Checks the traffic token, where the sandbox has one. The agent's port never needs it:
/// the agent has a token of its own.
pub(crate) fn check_traffic_token(
    expected: Option<&Secret>,
    port: u16,
    headers: &HeaderMap,
) -> Result<(), TokenError> {
    let Some(expected) = expected.filter(|_| port != ENVD_PORT) else {
        return Ok(());
    };
    if expected.matches(token(headers, TRAFFIC_ACCESS_TOKEN_HEADER)?) {
        Ok(())
    } else {
        Err(TokenError::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(port: u16, values: &[&str]) -> Result<(), TokenError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRAFFIC_ACCESS_TOKEN_HEADER, value.parse().unwrap());
        }
        check_traffic_token(Some(&Secret::new("right".to_owned())), port, &headers)
    }

    #[test]
    fn only_the_one_right_token_passes() {
        assert_eq!(check(8080, &["right"]), Ok(()));
        assert_eq!(check(8080, &[]), Err(TokenError::Missing));
        assert_eq!(check(8080, &[""]), Err(TokenError::Missing));
        assert_eq!(check(8080, &["wrong"]), Err(TokenError::Invalid));
        assert_eq!(check(8080, &["right", "right"]), Err(TokenError::Invalid));
        assert_eq!(check(8080, &["räight"]), Err(TokenError::Invalid));
    }

    #[test]
    fn the_agent_and_public_sandboxes_need_none() {
        assert_eq!(check(ENVD_PORT, &[]), Ok(()));
        assert_eq!(check_traffic_token(None, 8080, &HeaderMap::new()), Ok(()));
    }
}
