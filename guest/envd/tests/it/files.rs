//! Uploads, downloads, compositions.

use std::io::Write as _;

use serde_json::json;

use crate::client::Reply;
use crate::sandbox::Sandbox;

fn part(disposition: &str, content: &str) -> String {
    format!("--B\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n")
}

fn multipart(sandbox: &Sandbox, query: &str, parts: &[String]) -> Reply {
    let body = format!("{}--B--\r\n", parts.concat());
    sandbox
        .request("POST", &format!("/files{query}"))
        .header("content-type", "multipart/form-data; boundary=B")
        .body(body.as_bytes())
        .send()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn raw_uploads() {
    let sandbox = Sandbox::new();
    let reply = sandbox.upload("a.txt", b"hello");
    let expected = json!([{"path": "/home/user/a.txt", "name": "a.txt", "type": "file"}]);
    assert_eq!((reply.status, reply.json()), (200, expected));
    assert_eq!(
        sandbox.run("cat a.txt; stat -c '%U %G %a' a.txt"),
        "hellouser user 644\n"
    );
    let post = |query: &str, kind: &str| {
        let request = sandbox.request("POST", &format!("/files{query}"));
        request.header("content-type", kind).body(b"x").send()
    };
    post("", "application/octet-stream")
        .assert_rest_error(400, "path query parameter is required for raw body upload");
    post("?path=x", "text/plain").assert_rest_error(
        400,
        "unsupported content type: text/plain, expected multipart/form-data or application/octet-stream",
    );
    sandbox
        .upload("/tmp", b"x")
        .assert_rest_error(400, "path is a directory: /tmp");
    let under = sandbox.upload("a.txt/b", b"x");
    assert_eq!(under.status, 500);
    assert!(
        under.text().contains("path is a file: /home/user/a.txt"),
        "{}",
        under.text()
    );
    assert_eq!(sandbox.upload("~bob/x", b"x").status, 400);
}

#[test]
fn multipart_uploads() {
    let sandbox = Sandbox::new();
    let reply = multipart(
        &sandbox,
        "",
        &[
            part("name=\"file\"; filename=\"d/x\"", "one"),
            part("name=\"other\"", "skipped"),
            part("name=\"file\"; filename=\"/tmp/y\"", "two"),
        ],
    );
    let paths: Vec<_> = reply
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["path"].clone())
        .collect();
    assert_eq!(paths, ["/home/user/d/x", "/tmp/y"]);
    assert_eq!(sandbox.run("cat d/x /tmp/y"), "onetwo");
    assert_eq!(
        multipart(&sandbox, "?path=p", &[part("name=\"file\"", "plain")]).status,
        200
    );
    assert_eq!(sandbox.run("cat p"), "plain");
    assert_eq!(
        multipart(&sandbox, "", &[part("name=\"x\"", "y")]).json(),
        json!([])
    );
    assert_eq!(multipart(&sandbox, "", &[]).json(), json!([]));
    let same = part("name=\"file\"; filename=\"s\"", "first");
    let twice = multipart(&sandbox, "", &[same.clone(), same]);
    assert_eq!(twice.status, 400);
    let message = twice.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("you cannot upload multiple files to the same path"),
        "{message}"
    );
    multipart(&sandbox, "", &[part("name=\"file\"", "x")]).assert_rest_error(
        400,
        "error getting multipart custom part file name: filename not found in Content-Disposition header",
    );
}

#[test]
fn compressed_uploads() {
    let sandbox = Sandbox::new();
    let post = |coding: &str, kind: &str, body: &[u8]| {
        let request = sandbox
            .request("POST", "/files?path=z")
            .header("content-encoding", coding);
        request.header("content-type", kind).body(body).send()
    };
    let content = "compress me ".repeat(100_000);
    assert_eq!(
        post(
            "gzip",
            "application/octet-stream",
            &gzip(content.as_bytes())
        )
        .status,
        200
    );
    assert_eq!(
        sandbox.run("md5sum < z"),
        sandbox.run("yes 'compress me ' | head -100000 | tr -d '\\n' | md5sum")
    );
    let form = format!("{}--B--\r\n", part("name=\"file\"", "packed"));
    assert_eq!(
        post(
            "gzip",
            "multipart/form-data; boundary=B",
            &gzip(form.as_bytes())
        )
        .status,
        200
    );
    assert_eq!(sandbox.run("cat z"), "packed");
    for (coding, body) in [("br", &b"x"[..]), ("gzip", b"not gzip at all")] {
        let reply = post(coding, "application/octet-stream", body);
        assert_eq!(reply.status, 400);
        assert!(
            reply.text().contains("error decompressing request body: "),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn owners_of_what_is_new_and_what_was_there() {
    let sandbox = Sandbox::new();
    sandbox.run_root("mkdir -p /opt/w; touch /opt/w/f; chmod 600 /opt/w/f; echo secret > /root/x; chmod 600 /root/x");
    sandbox.upload("/opt/w/f", b"mine");
    sandbox.upload("/opt/w/new/deep/f", b"x");
    let shown = sandbox.run("cd /opt/w; stat -c '%U %a' f . new new/deep new/deep/f; cat f");
    assert_eq!(
        shown,
        "user 600\nroot 755\nuser 755\nuser 755\nuser 644\nmine"
    );
    assert_eq!(
        sandbox.get("/files?path=/root/x&username=user").text(),
        "secret\n"
    );
}

#[test]
fn parallel_uploads_share_new_directories() {
    let sandbox = Sandbox::new();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let sandbox = &sandbox;
            scope.spawn(move || {
                let reply = sandbox.upload(&format!("p/q/r/{n}"), n.to_string().as_bytes());
                assert_eq!(reply.status, 200, "{}", reply.text());
            });
        }
    });
    assert_eq!(sandbox.run("cat p/q/r/*"), "0123");
}

#[test]
fn metadata_is_replaced_by_each_upload() {
    let sandbox = Sandbox::new();
    let post = |value: Option<&str>| {
        let mut request = sandbox.request("POST", "/files?path=m");
        if let Some(value) = value {
            request = request.header("X-Metadata-Author", value);
        }
        request
            .header("content-type", "application/octet-stream")
            .body(b"x")
            .send()
    };
    let stat = || {
        let reply = sandbox.call("filesystem.Filesystem/Stat", &json!({"path": "m"}));
        reply.json()["entry"].get("metadata").cloned()
    };
    assert_eq!(
        post(Some("me")).json()[0]["metadata"],
        json!({"author": "me"})
    );
    assert_eq!(stat(), Some(json!({"author": "me"})));
    assert_eq!(post(None).json()[0].get("metadata"), None);
    assert_eq!(stat(), None);
    for bad in ["é", &"x".repeat(4096)] {
        let reply = post(Some(bad));
        assert_eq!(reply.status, 400);
        assert!(
            reply.text().contains("invalid metadata:"),
            "{}",
            reply.text()
        );
    }
}

#[test]
fn a_full_disk_is_507() {
    let sandbox = Sandbox::new();
    sandbox.run_root("mkdir -m 777 /tmp/small; mount -t tmpfs -o size=64k tmpfs /tmp/small");
    let reply = sandbox.upload("/tmp/small/f", &vec![b'x'; 1 << 20]);
    let message = "attempted to write 1048576 bytes: not enough disk space available";
    reply.assert_rest_error(507, message);
}

#[test]
fn downloads_negotiate_their_coding() {
    let sandbox = Sandbox::new();
    sandbox.upload("t.txt", b"0123456789");
    let get = |name: &str, value: &str| {
        sandbox
            .request("GET", "/files?path=t.txt")
            .header(name, value)
            .send()
    };
    let packed = get("accept-encoding", "gzip, deflate");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(
        (packed.header("content-length"), packed.header("vary")),
        (None, Some("Accept-Encoding"))
    );
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(&packed.body[..]),
        &mut text,
    )
    .unwrap();
    assert_eq!(text, "0123456789");

    let plain = sandbox.get("/files?path=t.txt");
    assert_eq!(plain.text(), "0123456789");
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(plain.header("accept-ranges"), Some("bytes"));
    assert_eq!(
        plain.header("content-disposition"),
        Some("inline; filename=t.txt")
    );
    let modified = plain.header("last-modified").unwrap();
    assert_eq!(get("if-modified-since", modified).status, 304);

    let part = get("range", "bytes=0-3");
    assert_eq!((part.status, part.text().as_str()), (206, "0123"));
    assert_eq!(part.header("content-range"), Some("bytes 0-3/10"));
    let parts = get("range", "bytes=0-0,-1");
    assert!(
        parts
            .header("content-type")
            .unwrap()
            .starts_with("multipart/byteranges")
    );
    assert!(parts.text().contains("bytes 9-9/10"));
    let beyond = get("range", "bytes=10-");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */10"))
    );
    get("accept-encoding", "identity;q=0, br").assert_rest_error(
        406,
        "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]",
    );
    let both = sandbox
        .request("GET", "/files?path=t.txt")
        .header("accept-encoding", "gzip, identity;q=0");
    both.header("range", "bytes=0-1").send().assert_rest_error(
        406,
        "identity encoding not acceptable for Range or conditional request",
    );
}

#[test]
fn odd_files() {
    let sandbox = Sandbox::new();
    sandbox.run("touch empty 'a b.txt' é.txt; mkdir d; mkfifo pipe");
    let empty = sandbox.get("/files?path=empty");
    assert_eq!(
        (empty.status, empty.header("content-length")),
        (200, Some("0"))
    );
    let name = |query: &str| {
        let reply = sandbox.get(&format!("/files?path={query}"));
        reply.header("content-disposition").unwrap().to_owned()
    };
    assert_eq!(name("a%20b.txt"), "inline; filename=\"a b.txt\"");
    assert_eq!(name("%C3%A9.txt"), "inline; filename*=utf-8''%C3%A9.txt");
    sandbox
        .get("/files?path=d")
        .assert_rest_error(400, "path '/home/user/d' is a directory");
    sandbox
        .get("/files")
        .assert_rest_error(400, "path '/home/user' is a directory");
    assert_eq!(sandbox.get("/files?path=pipe").status, 500);
    assert!(
        sandbox
            .get("/files?path=/proc/version")
            .text()
            .starts_with("Linux")
    );
}

#[test]
fn large_files_do_not_fill_the_agent() {
    let sandbox = Sandbox::new();
    let content: Vec<u8> = (0..24_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert_eq!(sandbox.upload("big", &content).status, 200);
    assert!(sandbox.get("/files?path=big").body == content);
    let packed = sandbox
        .request("GET", "/files?path=big")
        .header("accept-encoding", "gzip")
        .send();
    let mut back = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&packed.body[..]),
        &mut back,
    )
    .unwrap();
    assert!(back == content);
    let status = std::fs::read_to_string(format!("/proc/{}/status", sandbox.agent_pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    // Less than the content, with room for the code of a debug build.
    assert!(kib < 16 << 10, "{line}");
}

#[test]
fn composition_is_all_or_nothing() {
    let sandbox = Sandbox::new();
    for n in ["1", "2", "3"] {
        sandbox.upload(n, n.as_bytes());
    }
    sandbox.upload("out", b"old");
    let compose = |body| sandbox.request("POST", "/files/compose").json(&body).send();
    compose(json!({"source_paths": ["1", "none"], "destination": "out"}))
        .assert_rest_error(404, "source file not found: /home/user/none");
    compose(json!({"source_paths": [], "destination": "out"}))
        .assert_rest_error(400, "source_paths must not be empty");
    compose(json!({"source_paths": ["1"]})).assert_rest_error(400, "destination is required");
    compose(json!({"source_paths": ["out"], "destination": "out"}))
        .assert_rest_error(400, "source path \"out\" cannot be the same as destination");
    compose(json!({"source_paths": ["/tmp"], "destination": "out"}))
        .assert_rest_error(400, "source path is not a regular file: /tmp");
    assert_eq!(
        sandbox
            .run("cat 1 out; ls -A | sort | tr '\\n' ' '")
            .trim_end(),
        "1old1 2 3 out"
    );
    let done = compose(json!({"source_paths": ["3", "1", "2"], "destination": "out"}));
    let expected = json!({"path": "/home/user/out", "name": "out", "type": "file"});
    assert_eq!((done.status, done.json()), (200, expected));
    assert_eq!(
        sandbox.run("cat out; stat -c ' %U' out; ls -A"),
        "312 user\nout\n"
    );
}
