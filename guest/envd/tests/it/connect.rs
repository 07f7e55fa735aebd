//! The Connect protocol and the users of calls.

use std::io::Write;

use serde_json::json;
use warren_connect::process::{ListRequest, ListResponse};
use warren_connect::{Codec, decode_unary};

use crate::client::{Stream, chunk, envelope};
use crate::sandbox::{Sandbox, shell};

#[test]
fn unary_calls_answer_in_the_codec_of_the_request() {
    let sandbox = Sandbox::new();
    let json = sandbox.call("process.Process/List", &json!({"unknown": [1]}));
    assert_eq!(json.header("content-type"), Some("application/json"));
    let mut running = sandbox.start("sleep 60");
    let pid = running.pid();
    let body = Codec::Proto.encode(&ListRequest {}).unwrap();
    let proto = sandbox
        .request("POST", "/process.Process/List")
        .header("content-type", "application/proto")
        .body(&body)
        .send();
    assert_eq!(proto.header("content-type"), Some("application/proto"));
    let status = http::StatusCode::from_u16(proto.status).unwrap();
    let list: ListResponse = decode_unary(Codec::Proto, status, &proto.body).unwrap();
    assert_eq!(u64::from(list.processes[0].pid), pid);
}

#[test]
fn streams_are_never_compressed() {
    let sandbox = Sandbox::new();
    let mut stream = sandbox
        .request("POST", "/process.Process/Start")
        .header("accept-encoding", "gzip, br")
        .stream(&shell("echo hi"));
    assert_eq!(stream.head.header("content-encoding"), None);
    assert_eq!(
        stream.head.header("content-type"),
        Some("application/connect+json")
    );
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
    loop {
        let (flags, payload) = stream.next();
        assert_eq!(flags & 1, 0);
        if flags == 2 {
            assert_eq!(payload, json!({}));
            break;
        }
    }
}

#[test]
fn timeouts_are_ten_digits() {
    let sandbox = Sandbox::new();
    for value in ["abc", "10000000000"] {
        let request = sandbox.request("POST", "/process.Process/List");
        let reply = request
            .header("connect-timeout-ms", value)
            .json(&json!({}))
            .send();
        reply.assert_rpc_error(400, "invalid_argument", "parse timeout:");
        let request = sandbox.request("POST", "/process.Process/Start");
        let mut stream = request
            .header("connect-timeout-ms", value)
            .stream(&shell("true"));
        let (flags, end) = stream.next();
        assert_eq!(
            (flags, &end["error"]["code"]),
            (2, &json!("invalid_argument"))
        );
    }
}

#[test]
fn unknown_users_are_unauthenticated() {
    let sandbox = Sandbox::new();
    // nobody-such:
    let basic = "Basic bm9ib2R5LXN1Y2g6";
    let stat = sandbox.request("POST", "/filesystem.Filesystem/Stat");
    let stat = stat
        .header("authorization", basic)
        .json(&json!({"path": "/"}))
        .send();
    stat.assert_rpc_error(401, "unauthenticated", "invalid username: 'nobody-such'");
    let start = sandbox.request("POST", "/process.Process/Start");
    let mut start = start.header("authorization", basic).stream(&shell("true"));
    assert_eq!(start.head.status, 200);
    assert_eq!(start.next().1["error"]["code"], "unauthenticated");
    assert_eq!(sandbox.run("whoami"), "user\n");
    assert_eq!(sandbox.run_root("whoami"), "root\n");
    sandbox
        .get("/files?path=x&username=ghost")
        .assert_rest_error(
            401,
            "error looking up user 'ghost': user: unknown user ghost",
        );
}

#[test]
fn input_streams_keep_their_order() {
    let sandbox = Sandbox::new();
    let mut request = shell("head -n 2");
    request["stdin"] = json!(true);
    let mut running = sandbox.stream("process.Process/Start", &request);
    let pid = running.pid();
    let mut socket = sandbox
        .request("POST", "/process.Process/StreamInput")
        .header("content-type", "application/connect+json")
        .open_chunked();
    for frame in [
        json!({"start": {"process": {"pid": pid}}}),
        json!({"data": {"input": {"stdin": "b25lCg=="}}}),
        json!({"keepalive": {}}),
        json!({"data": {"input": {"stdin": "dHdvCg=="}}}),
    ] {
        socket
            .get_mut()
            .write_all(&chunk(&envelope(&frame)))
            .unwrap();
    }
    socket.get_mut().write_all(b"0\r\n\r\n").unwrap();
    let mut reply = Stream::new(socket);
    assert_eq!(reply.next(), (0, json!({})));
    assert_eq!(reply.next(), (2, json!({})));
    assert_eq!(running.finish().stdout, b"one\ntwo\n");
}

#[test]
fn input_before_its_process_is_refused() {
    let sandbox = Sandbox::new();
    let frame = json!({"data": {"input": {"stdin": "eA=="}}});
    let mut reply = sandbox.stream("process.Process/StreamInput", &frame);
    assert_eq!(reply.next().1["error"]["code"], "invalid_argument");
    assert_eq!(sandbox.get("/health").status, 204);
}
