use super::*;

fn id() -> SandboxId {
    "iabc".parse().unwrap()
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v)))
        .collect()
}

const FIREFOX: (&str, &str) = (
    "user-agent",
    "Mozilla/5.0 (X11) Gecko/20100101 Firefox/140.0",
);

fn text(response: &Response<ProxyBody>) -> &str {
    std::str::from_utf8(response.body().bytes()).unwrap()
}

fn all() -> Vec<(Refusal, u16, &'static str)> {
    vec![
        (
            Refusal::NotFound { id: id() },
            502,
            r#"{"sandboxId":"iabc","message":"The sandbox was not found","code":502}"#,
        ),
        (
            Refusal::Ended {
                id: id(),
                why: "ran out of memory (it used 512 MiB)".to_owned(),
            },
            502,
            r#"{"sandboxId":"iabc","message":"The sandbox was not found: it ran out of memory (it used 512 MiB)","code":502}"#,
        ),
        (
            Refusal::PortClosed {
                id: id(),
                port: 3210,
                host: "3210-iabc.d".to_owned(),
            },
            502,
            r#"{"sandboxId":"iabc","message":"The sandbox is running but port is not open","port":3210,"code":502}"#,
        ),
        (
            Refusal::Reserved { path: "/init" },
            404,
            r#"{"message":"This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL","path":"/init","code":404}"#,
        ),
        (
            Refusal::TokenMissing { id: id() },
            403,
            r#"{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is missing","code":403}"#,
        ),
        (
            Refusal::TokenInvalid { id: id() },
            403,
            r#"{"sandboxId":"iabc","message":"Sandbox is secured with traffic access token. Provided token in header 'e2b-traffic-access-token' is invalid","code":403}"#,
        ),
        (
            Refusal::ResumeDenied { id: id() },
            403,
            r#"{"sandboxId":"iabc","message":"This sandbox can't be resumed with the credentials provided. Check your access token and try again.","code":403}"#,
        ),
        (
            Refusal::Transitioning { id: id() },
            409,
            r#"{"sandboxId":"iabc","message":"The sandbox is still transitioning. Try again in a moment.","code":409}"#,
        ),
        (
            Refusal::LimitReached {
                id: id(),
                message: String::new(),
            },
            429,
            r#"{"sandboxId":"iabc","message":"Sandbox limit reached","code":429}"#,
        ),
        (
            Refusal::LimitReached {
                id: id(),
                message: "no \"more\"".to_owned(),
            },
            429,
            r#"{"sandboxId":"iabc","message":"no \"more\"","code":429}"#,
        ),
        (
            Refusal::TooManyConnections { id: id(), limit: 2 },
            429,
            r#"{"sandboxId":"iabc","message":"The sandbox has too many concurrent incoming connections (limit: 2)","code":429,"connectionLimit":2}"#,
        ),
    ]
}

#[test]
fn json_bodies_are_exact() {
    for (refusal, status, body) in all() {
        let response = refusal.respond(&Asker::of(&Method::GET, &HeaderMap::new()));
        assert_eq!(response.status().as_u16(), status, "{refusal:?}");
        assert_eq!(text(&response), body);
        assert_eq!(
            response.headers()["content-type"],
            "application/json; charset=utf-8"
        );
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
}

#[test]
fn every_refusal_is_also_a_page_with_its_facts() {
    let page = |refusal: &Refusal| {
        let response = refusal.respond(&Asker::of(
            &Method::GET,
            &headers(&[FIREFOX, ("accept", "text/html")]),
        ));
        assert_eq!(
            response.headers()["content-type"],
            "text/html; charset=utf-8"
        );
        text(&response).to_owned()
    };
    for (refusal, ..) in all() {
        let html = page(&refusal);
        assert!(
            html.starts_with("<html") && html.ends_with("</html>"),
            "{html}"
        );
    }
    let not_found = page(&Refusal::NotFound { id: id() });
    assert!(not_found.contains("Sandbox Not Found") && not_found.contains("iabc"));
    let host = "3210-iabc.<d>".to_owned();
    let closed = page(&Refusal::PortClosed {
        id: id(),
        port: 3210,
        host,
    });
    for part in [
        "no service running on port",
        "iabc",
        "3210",
        "3210-iabc.&lt;d&gt;",
    ] {
        assert!(closed.contains(part), "{part}: {closed}");
    }
    let reserved = page(&Refusal::Reserved { path: "/init" });
    assert!(reserved.contains("Endpoint Not Available") && reserved.contains("/init"));
    let missing = page(&Refusal::TokenMissing { id: id() });
    for part in [
        "Missing Traffic Access Token",
        "iabc",
        "e2b-traffic-access-token",
    ] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    assert!(page(&Refusal::TokenInvalid { id: id() }).contains("Invalid Traffic Access Token"));
    assert!(page(&Refusal::TooManyConnections { id: id(), limit: 2 }).contains("iabc"));
}

#[test]
fn only_navigating_browsers_get_pages() {
    let accept_html = ("accept", "text/html,application/xhtml+xml");
    let json_only = ("accept", "application/json");
    let both = ("accept", "application/json, text/html");
    let by_script = ("x-requested-with", "x");
    let mode = |value: &'static str| ("sec-fetch-mode", value);
    for (pairs, expected) in [
        (vec![FIREFOX, accept_html], Form::Html),
        (vec![FIREFOX], Form::Html),
        (vec![FIREFOX, both], Form::Html),
        (vec![FIREFOX, mode("navigate"), by_script], Form::Html),
        (vec![FIREFOX, ("x-requested-with", "")], Form::Html),
        (vec![("user-agent", "curl/8.0"), accept_html], Form::Json),
        (vec![accept_html], Form::Json),
        (vec![FIREFOX, json_only], Form::Json),
        (vec![FIREFOX, mode("cors")], Form::Json),
        (vec![FIREFOX, mode("no-cors")], Form::Json),
        (vec![FIREFOX, mode("same-origin")], Form::Json),
        (vec![FIREFOX, mode("websocket")], Form::Json),
        (vec![FIREFOX, by_script], Form::Json),
        (vec![FIREFOX, mode("navigate"), json_only], Form::Json),
    ] {
        assert_eq!(form(&headers(&pairs)), expected, "{pairs:?}");
    }
}

#[test]
fn malformed_requests_get_text() {
    for (refusal, status, body) in [
        (
            Refusal::Malformed(TargetError::MissingHeader),
            400,
            "missing header\n",
        ),
        (
            Refusal::Malformed(TargetError::InvalidHost),
            400,
            "Invalid host\n",
        ),
        (
            Refusal::Malformed(TargetError::InvalidSandboxId),
            400,
            "Invalid sandbox ID\n",
        ),
        (
            Refusal::Malformed(TargetError::InvalidPort),
            400,
            "Invalid sandbox port\n",
        ),
        (Refusal::Method, 405, "method not allowed\n"),
        (
            Refusal::Unroutable,
            502,
            "Failed to route request to sandbox\n",
        ),
        (
            Refusal::Unexpected { what: "x" },
            500,
            "Unexpected error when routing request: x\n",
        ),
    ] {
        let response = refusal.respond(&Asker::of(&Method::GET, &headers(&[FIREFOX])));
        assert_eq!(
            (response.status().as_u16(), text(&response)),
            (status, body)
        );
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; charset=utf-8"
        );
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
}

#[test]
fn a_preflight_is_answered_and_echoes_what_it_asks_for() {
    let asked = headers(&[
        ("origin", "https://page.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization, x-custom"),
    ]);
    let response = Refusal::NotFound { id: id() }.respond(&Asker::of(&Method::OPTIONS, &asked));
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert_eq!(response.headers()["access-control-allow-methods"], "PUT");
    assert_eq!(
        response.headers()["access-control-allow-headers"],
        "authorization, x-custom"
    );
    let plain =
        Refusal::NotFound { id: id() }.respond(&Asker::of(&Method::OPTIONS, &HeaderMap::new()));
    assert_eq!(plain.status(), 502);
}

#[test]
fn head_tells_the_length_without_a_body() {
    let response =
        Refusal::NotFound { id: id() }.respond(&Asker::of(&Method::HEAD, &HeaderMap::new()));
    assert_eq!(text(&response), "");
    assert_ne!(response.headers()["content-length"], "0");
}
