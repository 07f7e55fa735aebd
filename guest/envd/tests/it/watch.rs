//! Watches.

use serde_json::{Value, json};

use crate::client::Stream;
use crate::sandbox::Sandbox;

fn watch(sandbox: &Sandbox, body: &Value) -> Stream {
    let mut stream = sandbox.stream("filesystem.Filesystem/WatchDir", body);
    assert_eq!(stream.next(), (0, json!({"start": {}})));
    stream
}

/// Creates `end` in the home directory's `w` and collects what came before it.
fn events(sandbox: &Sandbox, stream: &mut Stream) -> Vec<(String, String)> {
    sandbox.run("mkdir w/end");
    let mut found = Vec::new();
    loop {
        let (flags, value) = stream.next();
        assert_eq!(flags, 0, "{value}");
        let event = &value["filesystem"];
        if event["name"] == "end" {
            return found;
        }
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        found.push((text("name"), text("type").replace("EVENT_TYPE_", "")));
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn an_upload_is_three_events() {
    let sandbox = Sandbox::new();
    sandbox.run("mkdir -p w/nested");
    let mut flat = watch(&sandbox, &json!({"path": "w"}));
    let mut deep = watch(&sandbox, &json!({"path": "w", "recursive": true}));
    sandbox.upload("w/test.txt", b"content");
    sandbox
        .request("POST", "/files?path=w/nested/file")
        .header("content-type", "multipart/form-data; boundary=B")
        .body(b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\ny\r\n--B--\r\n")
        .send();
    let three = |name| [(name, "CREATE"), (name, "CHMOD"), (name, "WRITE")];
    let seen = events(&sandbox, &mut flat);
    assert_eq!(seen, pairs(&three("test.txt")));
    sandbox.run("rmdir w/end");
    let mut seen = events(&sandbox, &mut deep);
    seen.retain(|(name, _)| name != "end");
    let expected = [three("test.txt"), three("nested/file")].concat();
    assert_eq!(seen, pairs(&expected));
}

#[test]
fn renames_removals_and_new_directories() {
    let sandbox = Sandbox::new();
    sandbox.run("mkdir w; touch w/a");
    let mut stream = watch(
        &sandbox,
        &json!({"path": "w", "recursive": true, "includeEntry": true}),
    );
    sandbox.run("mv w/a w/b; rm w/b; mkdir w/new");
    let mut found = Vec::new();
    while found.len() < 4 {
        let (_, value) = stream.next();
        let event = value["filesystem"].clone();
        found.push((
            event["name"].clone(),
            event["type"].clone(),
            event.get("entry").is_some(),
        ));
    }
    let of =
        |name: &str, kind: &str, entry| (json!(name), json!(format!("EVENT_TYPE_{kind}")), entry);
    assert_eq!(found[0], of("a", "RENAME", false));
    // Whether `b` is still there when its event is read is a race.
    assert_eq!(
        (&found[1].0, &found[1].1),
        (&json!("b"), &json!("EVENT_TYPE_CREATE"))
    );
    assert_eq!(
        found[2..],
        [of("b", "REMOVE", false), of("new", "CREATE", true)]
    );
    sandbox.upload("w/new/file", b"x");
    let (_, value) = stream.next();
    assert_eq!(value["filesystem"]["name"], "new/file");
    assert_eq!(
        value["filesystem"]["entry"]["path"],
        "/home/user/w/new/file"
    );
}

#[test]
fn what_cannot_be_watched() {
    let sandbox = Sandbox::new();
    sandbox.run("touch f");
    let error = |path: &str| {
        let mut stream = sandbox.stream("filesystem.Filesystem/WatchDir", &json!({"path": path}));
        stream.next().1["error"].clone()
    };
    assert_eq!(error("none")["code"], "not_found");
    assert_eq!(
        error("f"),
        json!({"code": "invalid_argument", "message": "path /home/user/f not a directory"})
    );
    let request = sandbox.request("POST", "/filesystem.Filesystem/WatchDir");
    let mut stream = request
        .header("connect-timeout-ms", "200")
        .stream(&json!({"path": ""}));
    assert_eq!(stream.next().1, json!({"start": {}}));
    assert_eq!(stream.next().1["error"]["code"], "deadline_exceeded");
}

#[test]
fn collected_events_are_fetched_once() {
    let sandbox = Sandbox::new();
    sandbox.run("mkdir w");
    let made = sandbox
        .call("filesystem.Filesystem/CreateWatcher", &json!({"path": "w"}))
        .json();
    let id = made["watcherId"].as_str().unwrap().to_owned();
    let body = json!({"watcherId": id});
    let fetch = || sandbox.call("filesystem.Filesystem/GetWatcherEvents", &body);
    assert_eq!(fetch().json(), json!({}));
    sandbox.upload("w/f", b"x");
    let mut count = 0;
    while count < 3 {
        count += fetch().json()["events"].as_array().map_or(0, Vec::len);
    }
    assert_eq!((count, fetch().json()), (3, json!({})));
    let remove = || sandbox.call("filesystem.Filesystem/RemoveWatcher", &body);
    assert_eq!(remove().json(), json!({}));
    let text = format!("watcher with id {id} not found");
    fetch().assert_rpc_error(404, "not_found", &text);
    remove().assert_rpc_error(404, "not_found", &text);
}
