//! Which sandbox and port a request is for: the pure reading of its host and headers.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Request, header};
use warren_types::SandboxId;

/// Names the sandbox, on hosts that header routing is allowed on.
pub const SANDBOX_ID_HEADER: &str = "e2b-sandbox-id";
/// Names the port, on hosts that header routing is allowed on.
pub const SANDBOX_PORT_HEADER: &str = "e2b-sandbox-port";

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The sandbox.
    pub id: SandboxId,
    /// The port inside it; never 0.
    pub port: u16,
    /// Domain after `sandbox.`, with its port, when the shared host was used: the guest is
    /// shown the host name that the sandbox's port has in this domain.
    pub shared_domain: Option<String>,
}

/// Why a request names no target. The texts are the answers' bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Only one of the two routing headers.
    #[error("missing header")]
    MissingHeader,
    /// Neither `{port}-{id}.{domain}` nor a host with routing headers.
    #[error("Invalid host")]
    InvalidHost,
    /// Something else than `[a-z0-9]`, or too long.
    #[error("Invalid sandbox ID")]
    InvalidSandboxId,
    /// Not a decimal number from 1 to 65535.
    #[error("Invalid sandbox port")]
    InvalidPort,
}

/// The host that a request was sent to, with its port: the target URI's authority, which
/// wins over `Host` in HTTP/1.1 and replaces it in HTTP/2. `None` without any, or with
/// contradicting ones.
#[must_use]
pub fn request_host<B>(request: &Request<B>) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        return Some(text.rsplit_once('@').map_or(text, |(_, host)| host));
    }
    single(request.headers(), header::HOST.as_str())
}

/// The value of a header that occurs once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// A routing header's value; an empty one counts as absent.
fn routing_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(drop)?;
            Ok((!text.is_empty()).then_some(text))
        }
        (Some(_), Some(_)) => Err(()),
    }
}

/// Cuts `:port` off.
fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.split(':').next().unwrap_or(host)
}

fn shared_domain(host: &str) -> Option<&str> {
    const PREFIX: &str = "sandbox.";
    let (prefix, domain) = host.split_at_checked(PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(PREFIX) && !without_port(domain).is_empty()).then_some(domain)
}

fn takes_routing_headers(host: &str) -> bool {
    let name = without_port(host);
    let is_v6 = |text: &str| {
        text.strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok()
        || is_v6(name)
        || shared_domain(host).is_some()
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    // `u16::from_str` would take a sign.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TargetError::InvalidPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(TargetError::InvalidPort),
        Ok(port) => Ok(port),
    }
}

fn parse_id(text: &str) -> Result<SandboxId, TargetError> {
    text.parse().map_err(|_| TargetError::InvalidSandboxId)
}

/// The left-most label's first two parts, as in `{port}-{id}[-{anything}].{domain}`.
fn label_parts(host: &str) -> Option<(&str, &str)> {
    let (label, _) = host.split_once('.')?;
    let (port, rest) = label.split_once('-')?;
    Some((port, rest.split('-').next().unwrap_or(rest)))
}

/// Reads the target from `host` and the routing headers. The headers count only on
/// `localhost`, IP literals and `sandbox.{domain}`, so that a page served by one sandbox
/// can't reach another through its own origin.
///
/// # Errors
/// [`TargetError`] names the part that is missing or malformed.
pub fn parse_target(host: &str, headers: &HeaderMap) -> Result<Target, TargetError> {
    if takes_routing_headers(host) {
        let id = routing_header(headers, SANDBOX_ID_HEADER)
            .map_err(|()| TargetError::InvalidSandboxId)?;
        let port =
            routing_header(headers, SANDBOX_PORT_HEADER).map_err(|()| TargetError::InvalidPort)?;
        match (id, port) {
            (Some(id), Some(port)) => {
                return Ok(Target {
                    id: parse_id(id)?,
                    port: parse_port(port)?,
                    shared_domain: shared_domain(host).map(str::to_owned),
                });
            }
            (None, None) => {}
            _ => return Err(TargetError::MissingHeader),
        }
    }
    let (port, id) = label_parts(host).ok_or(TargetError::InvalidHost)?;
    Ok(Target {
        port: parse_port(port)?,
        id: parse_id(id)?,
        shared_domain: None,
    })
}

/// Whether a request on a listener shared with the API is sandbox traffic.
///
/// It is, if a routing header stands on a host that may carry them, or if the host's
/// left-most label starts with digits and `-`, like `3000-ID.example.com`, or names what
/// can only be a sandbox, like `abc-ID.example.com`. Everything else (`localhost:3000`,
/// `api.example.com`, `my-server.example.com`) is for the API; a dedicated proxy listener
/// answers those with the contract's 400s. An API host must therefore not have a name like
/// `1-api.example.com`.
#[must_use]
pub fn is_sandbox_traffic<B>(request: &Request<B>) -> bool {
    let Some(host) = request_host(request) else {
        return false;
    };
    if takes_routing_headers(host) {
        let headers = request.headers();
        return headers.contains_key(SANDBOX_ID_HEADER)
            || headers.contains_key(SANDBOX_PORT_HEADER);
    }
    label_parts(host).is_some_and(|(port, id)| {
        let numeric = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        numeric || is_fresh_id(id)
    })
}

/// Whether a text has the form of the ids that are given to sandboxes.
fn is_fresh_id(text: &str) -> bool {
    const LENGTH: usize = 21;
    text.len() == LENGTH && text.starts_with('i') && text.parse::<SandboxId>().is_ok()
}

/// Reads hostile bytes as `host NUL id NUL port` and checks what must hold of any target.
/// The body of the fuzz target and of the tests over its seeds.
///
/// # Panics
/// When an invariant is broken.
pub fn check_host_input(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let Ok(host) = std::str::from_utf8(parts.next().unwrap_or_default()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for name in [SANDBOX_ID_HEADER, SANDBOX_PORT_HEADER] {
        if let Some(Ok(value)) = parts.next().map(http::HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    let Ok(target) = parse_target(host, &headers) else {
        return;
    };
    assert_ne!(target.port, 0, "port 0 is unreachable");
    assert!(
        target
            .id
            .as_str()
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
        "the id is a plain word"
    );
    if !takes_routing_headers(host) {
        assert_eq!(
            parse_target(host, &HeaderMap::new()).as_ref(),
            Ok(&target),
            "headers never count on such a host"
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn both(id: &str, port: &str) -> HeaderMap {
        headers(&[(SANDBOX_ID_HEADER, id), (SANDBOX_PORT_HEADER, port)])
    }

    fn by_host(host: &str) -> Result<(String, u16), TargetError> {
        parse_target(host, &HeaderMap::new()).map(|t| (t.id.to_string(), t.port))
    }

    #[test]
    fn the_left_most_label_names_port_and_sandbox() {
        for host in [
            "3000-iabc.example.com",
            "3000-iabc-abc123.other.example:8443",
            "3000-iabc-x-y-z.d",
            "3000-iabc.localhost:3000",
            "03000-iabc.d",
        ] {
            assert_eq!(by_host(host), Ok(("iabc".to_owned(), 3000)), "{host}");
        }
    }

    #[test]
    fn malformed_hosts_are_told_apart() {
        for (host, error) in [
            ("", TargetError::InvalidHost),
            ("localhost", TargetError::InvalidHost),
            ("localhost:3000", TargetError::InvalidHost),
            ("127.0.0.1:3000", TargetError::InvalidHost),
            ("[::1]:3000", TargetError::InvalidHost),
            ("sandbox.example.com", TargetError::InvalidHost),
            ("3000-iabc", TargetError::InvalidHost),
            ("api.example.com", TargetError::InvalidHost),
            (".", TargetError::InvalidHost),
            ("3000-iABC.d", TargetError::InvalidSandboxId),
            ("3000-i_d.d", TargetError::InvalidSandboxId),
            ("3000-.d", TargetError::InvalidSandboxId),
            ("abc-iabc.d", TargetError::InvalidPort),
            ("-iabc.d", TargetError::InvalidPort),
            ("+80-iabc.d", TargetError::InvalidPort),
            ("0-iabc.d", TargetError::InvalidPort),
            ("65536-iabc.d", TargetError::InvalidPort),
        ] {
            assert_eq!(by_host(host), Err(error), "{host}");
        }
    }

    #[test]
    fn headers_count_on_shared_hosts_only() {
        let named = both("iother", "49983");
        for host in [
            "sandbox.d",
            "Sandbox.d:8443",
            "localhost:3000",
            "127.0.0.1",
            "[::1]:3000",
            "[fe80::1]",
        ] {
            let target = parse_target(host, &named).unwrap();
            assert_eq!(
                (target.id.as_str(), target.port),
                ("iother", 49983),
                "{host}"
            );
        }
        let target = parse_target("3000-iabc.d", &named).unwrap();
        assert_eq!((target.id.as_str(), target.port), ("iabc", 3000));
        for host in [
            "sandbox.",
            "sandbox",
            "sandbox.:80",
            "sandboxes.d",
            "[::1",
            "::1",
            "[x]",
        ] {
            assert_eq!(
                parse_target(host, &named),
                Err(TargetError::InvalidHost),
                "{host}"
            );
        }
    }

    #[test]
    fn a_shared_host_keeps_its_domain() {
        let target = parse_target("sandbox.d:8443", &both("iabc", "80")).unwrap();
        assert_eq!(target.shared_domain.as_deref(), Some("d:8443"));
    }

    #[test]
    fn half_or_malformed_headers_are_refused() {
        for (map, error) in [
            (
                headers(&[(SANDBOX_ID_HEADER, "iabc")]),
                TargetError::MissingHeader,
            ),
            (
                headers(&[(SANDBOX_PORT_HEADER, "80")]),
                TargetError::MissingHeader,
            ),
            (both("", "80"), TargetError::MissingHeader),
            (both("", ""), TargetError::InvalidHost),
            (both("iabc-x", "80"), TargetError::InvalidSandboxId),
            (both("iabc", "80 "), TargetError::InvalidPort),
        ] {
            assert_eq!(parse_target("sandbox.d", &map), Err(error), "{map:?}");
        }
        let mut twice = both("iabc", "80");
        twice.append(SANDBOX_ID_HEADER, "iother".parse().unwrap());
        assert_eq!(
            parse_target("sandbox.d", &twice),
            Err(TargetError::InvalidSandboxId)
        );
    }

    #[test]
    fn a_shared_listener_tells_traffic_from_api_calls() {
        let request = |host: &str, map: &HeaderMap| {
            let mut request = Request::builder()
                .uri("/x")
                .header("host", host)
                .body(())
                .unwrap();
            request.headers_mut().extend(map.clone());
            is_sandbox_traffic(&request)
        };
        let none = HeaderMap::new();
        let id_only = headers(&[(SANDBOX_ID_HEADER, "iabc")]);
        for host in [
            "3000-iabc.d",
            "3000-iabc-x.localhost:3000",
            "0-_.d",
            "49983-iabc.d:1",
        ] {
            assert!(request(host, &none), "{host}");
        }
        for host in [
            "localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "api.example.com",
            "my-server.example.com",
            "abc-iabc.d",
            "sandbox.d",
            "3000-iabc",
            "",
        ] {
            assert!(!request(host, &none), "{host}");
        }
        for host in [
            "localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "sandbox.d",
        ] {
            assert!(request(host, &id_only), "{host}");
        }
        assert!(!request("api.example.com", &id_only));
        assert!(!is_sandbox_traffic(&Request::new(())));
    }

    #[test]
    fn the_authority_wins_over_the_host_header() {
        let request = Request::builder()
            .uri("http://user@3000-iabc.d:81/x")
            .header("host", "api.d")
            .body(())
            .unwrap();
        assert_eq!(request_host(&request), Some("3000-iabc.d:81"));
        let twice = Request::builder()
            .header("host", "a.d")
            .header("host", "b.d")
            .body(());
        assert_eq!(request_host(&twice.unwrap()), None);
    }

    proptest! {
        #[test]
        fn any_valid_pair_comes_back(
            port in 1..=u16::MAX,
            id in "[a-z0-9]{1,48}",
            rest in "(-[a-z0-9-]{0,9})?",
            domain in "[a-z]{1,9}(\\.[a-z]{1,9})?(:[0-9]{1,5})?",
        ) {
            let host = format!("{port}-{id}{rest}.{domain}");
            prop_assert_eq!(by_host(&host), Ok((id.clone(), port)));
            let shared = format!("sandbox.{domain}");
            let target = parse_target(&shared, &both(&id, &port.to_string())).unwrap();
            prop_assert_eq!((target.id.as_str(), target.port), (id.as_str(), port));
        }

        #[test]
        fn any_bytes_are_taken(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_host_input(&data);
        }

        #[test]
        fn host_like_text_is_taken(text in "[0-9a-z\\[\\]:.\\-@]{0,40}(\\PC?i?d?){0,3}") {
            check_host_input(text.as_bytes());
        }
    }
}
