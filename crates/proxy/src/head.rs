//! Headers between client and guest: the pure rewriting of both heads.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use warren_types::ENVD_PORT;

use crate::target::Target;

const FORWARDED: [&str; 4] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// How the guest is addressed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GuestHost {
    /// `Host`.
    pub(crate) host: String,
    /// `X-Forwarded-Host`, when `Host` is masked.
    pub(crate) original: Option<String>,
}

impl GuestHost {
    /// Decides what the guest sees of `host`, which the request was sent to.
    pub(crate) fn new(host: &str, target: &Target, mask: Option<&str>) -> Self {
        let shown = match &target.shared_domain {
            Some(domain) => format!("{}-{}.{domain}", target.port, target.id),
            None => host.to_owned(),
        };
        match mask.filter(|mask| target.port != ENVD_PORT && !mask.is_empty()) {
            Some(mask) => Self {
                host: mask.replace("${PORT}", &target.port.to_string()),
                original: Some(shown),
            },
            None => Self {
                host: shown,
                original: None,
            },
        }
    }
}

/// The protocol that a request wants to switch to, if the proxy goes along.
///
/// Not on the agent's port, where nothing switches protocols and requests inside a tunnel
/// would pass unseen, nor to HTTP/2, for the same reason.
pub(crate) fn wanted_upgrade<B>(request: &Request<B>, port: u16) -> Option<HeaderValue> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || port == ENVD_PORT {
        return None;
    }
    if !tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let http2 = |token: &str| token.len() >= 2 && token[..2].eq_ignore_ascii_case("h2");
    let value = headers.get(header::UPGRADE)?;
    let usable = !value.is_empty() && !tokens(headers, &header::UPGRADE).any(http2);
    usable.then(|| value.clone())
}

/// The comma-separated words of a header.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty() && token.is_ascii())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // The length counts for nothing beside it, and would be believed downstream.
        headers.remove(header::CONTENT_LENGTH);
    }
    let listed: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Rewrites a client's request for the guest.
///
/// # Errors
/// The host for the guest is no valid header value.
pub(crate) fn to_guest<B>(
    mut request: Request<B>,
    host: &GuestHost,
    upgrade: Option<&HeaderValue>,
) -> Result<Request<B>, header::InvalidHeaderValue> {
    let shown = HeaderValue::from_str(&host.host)?;
    let original = host
        .original
        .as_deref()
        .map(HeaderValue::from_str)
        .transpose()?;
    let trailers =
        tokens(request.headers(), &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));

    *request.uri_mut() = origin_form(request.method(), request.uri());
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    for name in FORWARDED {
        headers.remove(name);
    }
    join_cookies(headers);
    headers.insert(header::HOST, shown);
    if let Some(original) = original {
        headers.insert("x-forwarded-host", original);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    set_upgrade(headers, upgrade);
    // What hyper keeps there belongs to the client's connection.
    request.extensions_mut().clear();
    Ok(request)
}

/// Rewrites the head of a guest's response for the client.
pub(crate) fn to_client(head: &mut http::response::Parts, upgrade: Option<&HeaderValue>) {
    head.version = Version::HTTP_11;
    head.extensions.clear();
    remove_hop_by_hop(&mut head.headers);
    set_upgrade(&mut head.headers, upgrade);
}

fn set_upgrade(headers: &mut HeaderMap, upgrade: Option<&HeaderValue>) {
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

/// Path and query as they came, without scheme and authority.
fn origin_form(method: &Method, uri: &Uri) -> Uri {
    match uri.path_and_query() {
        // `OPTIONS *` must not become `OPTIONS /`.
        Some(path) if method == Method::OPTIONS || path.as_str().starts_with('/') => {
            Uri::from(path.clone())
        }
        _ => Uri::from_static("/"),
    }
}

/// HTTP/2 may split a cookie header; HTTP/1.1 knows one line only.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("valid values joined by valid bytes");
    headers.insert(header::COOKIE, joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16, shared_domain: Option<&str>) -> Target {
        Target {
            id: "iabc".parse().unwrap(),
            port,
            shared_domain: shared_domain.map(str::to_owned),
        }
    }

    fn rewritten(request: http::request::Builder, upgrade: Option<&HeaderValue>) -> Request<()> {
        let host = GuestHost {
            host: "3000-iabc.d".to_owned(),
            original: None,
        };
        to_guest(request.body(()).unwrap(), &host, upgrade).unwrap()
    }

    #[test]
    fn the_host_is_kept_completed_or_masked() {
        let shown = |host: &str, target: Target, mask| {
            let guest = GuestHost::new(host, &target, mask);
            (guest.host, guest.original)
        };
        assert_eq!(
            shown("3000-iabc-x.d:8443", target(3000, None), None),
            ("3000-iabc-x.d:8443".to_owned(), None)
        );
        assert_eq!(
            shown("sandbox.d:8443", target(3000, Some("d:8443")), None),
            ("3000-iabc.d:8443".to_owned(), None)
        );
        assert_eq!(
            shown("8080-iabc.d", target(8080, None), Some("localhost:${PORT}")),
            ("localhost:8080".to_owned(), Some("8080-iabc.d".to_owned()))
        );
        assert_eq!(
            shown(
                "49983-iabc.d",
                target(49983, None),
                Some("localhost:${PORT}")
            ),
            ("49983-iabc.d".to_owned(), None)
        );
    }

    #[test]
    fn what_concerns_the_hop_is_removed() {
        let request = Request::builder()
            .uri("http://3000-iabc.d/a%2Fb?x=1&y")
            .header("connection", "x-private, keep-alive")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("te", "trailers, deflate")
            .header("transfer-encoding", "chunked")
            .header("content-length", "5")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "evil")
            .header("forwarded", "for=1.2.3.4")
            .header("e2b-sandbox-id", "iabc")
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let request = rewritten(request, None);
        assert_eq!(request.uri(), "/a%2Fb?x=1&y");
        let mut kept: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        kept.sort();
        assert_eq!(
            kept,
            [
                "cookie: a=1; b=2",
                "e2b-sandbox-id: iabc",
                "host: 3000-iabc.d",
                "te: trailers"
            ]
        );
    }

    #[test]
    fn the_asterisk_survives() {
        let options = Request::builder().method("OPTIONS").uri("*");
        assert_eq!(rewritten(options, None).uri(), "*");
    }

    #[test]
    fn only_harmless_protocols_are_switched_to() {
        let wanted = |connection: &str, upgrade: &str, port: u16, version: Version| {
            let request = Request::builder()
                .version(version)
                .header("connection", connection)
                .header("upgrade", upgrade)
                .body(())
                .unwrap();
            wanted_upgrade(&request, port).is_some()
        };
        assert!(wanted(
            "keep-alive, Upgrade",
            "websocket",
            80,
            Version::HTTP_11
        ));
        assert!(!wanted(
            "Upgrade, HTTP2-Settings",
            "h2c",
            80,
            Version::HTTP_11
        ));
        assert!(!wanted("Upgrade", "websocket, H2C", 80, Version::HTTP_11));
        assert!(!wanted("Upgrade", "websocket", ENVD_PORT, Version::HTTP_11));
        assert!(!wanted("close", "websocket", 80, Version::HTTP_11));
        assert!(!wanted("Upgrade", "", 80, Version::HTTP_11));
        assert!(!wanted("Upgrade", "websocket", 80, Version::HTTP_10));
    }

    #[test]
    fn a_switch_is_passed_on() {
        let protocol = HeaderValue::from_static("websocket");
        let request = Request::builder()
            .uri("/ws")
            .header("connection", "Upgrade, x");
        let request = rewritten(request, Some(&protocol));
        assert_eq!(request.headers()["connection"], "Upgrade");
        assert_eq!(request.headers()["upgrade"], "websocket");
    }

    #[test]
    fn a_response_keeps_what_is_the_guests() {
        let response = http::Response::builder()
            .version(Version::HTTP_10)
            .header("connection", "close")
            .header("transfer-encoding", "chunked")
            .header("content-length", "3")
            .header("access-control-allow-origin", "https://a.example")
            .body(())
            .unwrap();
        let (mut head, ()) = response.into_parts();
        to_client(&mut head, None);
        assert_eq!(head.version, Version::HTTP_11);
        assert_eq!(head.headers.len(), 1);
        assert_eq!(
            head.headers["access-control-allow-origin"],
            "https://a.example"
        );
    }
}
