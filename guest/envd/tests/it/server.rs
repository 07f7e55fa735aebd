//! Routes, CORS, tokens, signatures.

use serde_json::json;
use warren_envd::signature::{Operation, sign};

use crate::sandbox::{Sandbox, shell};

const UNAUTHORIZED: &str =
    "unauthorized access, please provide a valid access token or method signing if supported";
const TOKEN: &str = "0123456789abcdef";

fn signed(path: &str, operation: Operation, user: &str, expiration: Option<i64>) -> String {
    let signature = sign(path, operation, user, TOKEN, expiration);
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    let expiration = expiration.map_or(String::new(), |at| format!("&signature_expiration={at}"));
    let user = if user.is_empty() {
        String::new()
    } else {
        format!("&username={user}")
    };
    let path = if path.is_empty() {
        String::new()
    } else {
        format!("&path={path}")
    };
    format!("/files?signature={signature}{path}{user}{expiration}")
}

#[test]
fn an_open_sandbox_ignores_credentials() {
    let sandbox = Sandbox::new();
    let health = sandbox.get("/health");
    assert_eq!(
        (health.status, health.header("cache-control")),
        (204, Some("no-store"))
    );
    let list = sandbox
        .request("POST", "/process.Process/List")
        .header("x-access-token", "any");
    assert_eq!(list.json(&json!({})).send().json(), json!({}));
    sandbox.upload("a.txt", b"x");
    assert_eq!(
        sandbox
            .get("/files?path=a.txt&signature=v1_nonsense")
            .text(),
        "x"
    );
}

#[test]
fn wrong_routes_and_methods() {
    let sandbox = Sandbox::new();
    for (method, path, status) in [
        ("GET", "/nope", 404),
        ("HEAD", "/files", 405),
        ("DELETE", "/files", 405),
        ("GET", "/process.Process/List", 405),
        ("POST", "/process.Process/Nope", 404),
    ] {
        assert_eq!(
            sandbox.request(method, path).send().status,
            status,
            "{method} {path}"
        );
    }
    assert!(
        sandbox
            .get("/nope")
            .text()
            .starts_with("404 page not found")
    );
    assert_eq!(
        sandbox.get("/process.Process/List").header("allow"),
        Some("POST")
    );
    let plain = sandbox
        .request("POST", "/process.Process/List")
        .header("content-type", "text/plain");
    let plain = plain.send();
    assert_eq!(plain.status, 415);
    assert!(
        plain
            .header("accept-post")
            .unwrap()
            .contains("application/json")
    );
    let malformed = sandbox.get("/files?path=a&signature_expiration=soon");
    assert_eq!(malformed.status, 400);
    assert!(
        malformed
            .header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
}

#[test]
fn a_secure_sandbox_wants_its_token() {
    let sandbox = Sandbox::secure(TOKEN);
    assert_eq!(sandbox.get("/health").status, 204);
    for path in ["/metrics", "/envs"] {
        sandbox.get(path).assert_rest_error(401, UNAUTHORIZED);
    }
    let list = sandbox.call("process.Process/List", &json!({}));
    list.assert_rest_error(401, UNAUTHORIZED);
    assert_eq!(list.header("access-control-allow-origin"), Some("*"));
    let start = sandbox
        .request("POST", "/process.Process/Start")
        .header("content-type", "application/connect+json")
        .header("x-access-token", "wrong")
        .body(shell("true").to_string().as_bytes())
        .send();
    start.assert_rest_error(401, UNAUTHORIZED);
    let right = sandbox
        .request("POST", "/process.Process/List")
        .header("x-access-token", TOKEN);
    assert_eq!(right.json(&json!({})).send().status, 200);
    let compose = signed("", Operation::Write, "", None).replace("/files", "/files/compose");
    let compose = sandbox.request("POST", &compose).json(&json!({})).send();
    compose.assert_rest_error(401, UNAUTHORIZED);
}

#[test]
fn preflights_need_no_token() {
    let sandbox = Sandbox::secure(TOKEN);
    let reply = sandbox
        .request("OPTIONS", "/process.Process/List")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,x-access-token",
        )
        .send();
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    let allowed = reply.header("access-control-allow-headers");
    assert_eq!(allowed, Some("authorization,x-access-token"));
    assert!(
        reply
            .header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert_eq!(reply.header("access-control-max-age"), Some("7200"));
}

#[test]
fn signatures_open_one_file_for_one_purpose() {
    let sandbox = Sandbox::secure(TOKEN);
    let future = Some(4_000_000_000);
    let write = signed("", Operation::Write, "", None);
    let uploaded = sandbox
        .request("POST", &write)
        .header("content-type", "multipart/form-data; boundary=B")
        .body(b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"up.txt\"\r\n\r\nhello\r\n--B--\r\n")
        .send();
    assert_eq!(uploaded.json()[0]["path"], "/home/user/up.txt");

    assert_eq!(
        sandbox
            .get(&signed("up.txt", Operation::Read, "user", future))
            .text(),
        "hello"
    );
    sandbox
        .get("/files?path=up.txt")
        .assert_rest_error(401, "missing signature query parameter");
    let good = signed("up.txt", Operation::Read, "", Some(1));
    sandbox
        .get(&good)
        .assert_rest_error(401, "signature is already expired");
    for bad in [
        good.replace("expiration=1", "expiration=4000000000"),
        good.replace("up.txt", "other.txt"),
        format!("{good}&username=root"),
        signed("up.txt", Operation::Write, "", future),
    ] {
        sandbox
            .get(&bad)
            .assert_rest_error(401, "invalid signature");
    }
    sandbox
        .get(&signed("demo/test.txt", Operation::Read, "", None))
        .assert_rest_error(404, "path '/home/user/demo/test.txt' does not exist");
    sandbox
        .request("GET", &signed("up.txt", Operation::Read, "", None))
        .header("x-access-token", "wrong")
        .send()
        .assert_rest_error(401, "access token present in header but does not match");
}

#[test]
fn metrics_are_numbers() {
    let sandbox = Sandbox::new();
    let metrics = sandbox.get("/metrics").json();
    for name in [
        "ts",
        "cpu_count",
        "cpu_used_pct",
        "mem_total",
        "mem_used",
        "mem_cache",
        "mem_total_mib",
        "mem_used_mib",
        "disk_used",
        "disk_total",
    ] {
        assert!(metrics[name].is_number(), "{name}: {metrics}");
    }
    let of = |name: &str| metrics[name].as_u64().unwrap();
    assert!(of("disk_used") <= of("disk_total") && of("mem_used") <= of("mem_total"));
}
