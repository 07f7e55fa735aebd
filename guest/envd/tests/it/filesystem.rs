//! The file system service.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn stat(sandbox: &Sandbox, path: &str) -> Value {
    let reply = sandbox.call("filesystem.Filesystem/Stat", &json!({"path": path}));
    reply.json()["entry"].clone()
}

fn list(sandbox: &Sandbox, path: &str, depth: u32) -> Vec<String> {
    let body = json!({"path": path, "depth": depth});
    let reply = sandbox.call("filesystem.Filesystem/ListDir", &body).json();
    let entries = reply["entries"].as_array().cloned().unwrap_or_default();
    let paths = entries
        .iter()
        .map(|e| e["path"].as_str().unwrap().to_owned());
    paths.collect()
}

#[test]
fn files_and_directories_are_described() {
    let sandbox = Sandbox::new();
    sandbox.upload("test.txt", b"Hello, world!");
    let entry = stat(&sandbox, "test.txt");
    let modified = entry["modifiedTime"].as_str().unwrap();
    assert!(modified.ends_with('Z'), "{modified}");
    let expected = json!({
        "name": "test.txt", "type": "FILE_TYPE_FILE", "path": "/home/user/test.txt",
        "size": "13", "mode": 420, "permissions": "-rw-r--r--", "owner": "user",
        "group": "user", "modifiedTime": modified,
    });
    assert_eq!(entry, expected);
    assert_eq!(stat(&sandbox, "~/test.txt"), entry);

    let made = sandbox
        .call("filesystem.Filesystem/MakeDir", &json!({"path": "a/b"}))
        .json();
    assert_eq!(made["entry"]["mode"], 493);
    assert_eq!(made["entry"]["permissions"], "drwxr-xr-x");
    assert_eq!(stat(&sandbox, "a")["owner"], "user");
    let call = |path: &str| sandbox.call("filesystem.Filesystem/MakeDir", &json!({"path": path}));
    call("a").assert_rpc_error(
        409,
        "already_exists",
        "directory already exists: /home/user/a",
    );
    let text = "path already exists but it is not a directory: /home/user/test.txt";
    call("test.txt").assert_rpc_error(400, "invalid_argument", text);
    let other = sandbox.call("filesystem.Filesystem/Stat", &json!({"path": "~root/a"}));
    other.assert_rpc_error(400, "invalid_argument", "");
    let none = sandbox.call("filesystem.Filesystem/Stat", &json!({"path": "none"}));
    none.assert_rpc_error(404, "not_found", "file not found");
}

#[test]
fn links_show_their_target() {
    let sandbox = Sandbox::new();
    sandbox.run("echo x > f; ln -s f l; ln -s nowhere broken; mkdir d; touch d/x; ln -s d dl");
    let link = stat(&sandbox, "l");
    assert_eq!(link["type"], "FILE_TYPE_FILE");
    assert_eq!(link["symlinkTarget"], "/home/user/f");
    assert_eq!(link["isSymlink"], true);
    assert!(link["permissions"].as_str().unwrap().starts_with('L'));
    let broken = stat(&sandbox, "broken");
    assert_eq!((broken.get("type"), broken.get("mode")), (None, None));
    assert_eq!(broken["symlinkTarget"], "/home/user/broken");
    assert_eq!(list(&sandbox, "dl", 2), ["/home/user/dl/x"]);
    let all = list(&sandbox, "", 3);
    assert!(
        all.contains(&"/home/user/dl".to_owned()) && !all.contains(&"/home/user/dl/x".to_owned())
    );
}

#[test]
fn listings_have_levels() {
    let sandbox = Sandbox::new();
    sandbox.run("mkdir -p t/sub-dir-1/deep t/sub-dir-2 empty; touch t/sub-dir-1/file.txt f");
    for (depth, count) in [(0, 2), (1, 2), (2, 4), (3, 4)] {
        assert_eq!(list(&sandbox, "t", depth).len(), count, "{depth}");
    }
    assert!(list(&sandbox, "t", 1)[0].starts_with("/home/user/t/"));
    let call = |path: &str| sandbox.call("filesystem.Filesystem/ListDir", &json!({"path": path}));
    assert_eq!(call("empty").json(), json!({}));
    call("f").assert_rpc_error(
        400,
        "invalid_argument",
        "path is not a directory: /home/user/f",
    );
    call("none").assert_rpc_error(404, "not_found", "not found");
}

#[test]
fn moves_and_removals() {
    let sandbox = Sandbox::new();
    let upload = sandbox
        .request("POST", "/files?path=a")
        .header("x-metadata-k", "v");
    upload
        .header("content-type", "application/octet-stream")
        .body(b"new")
        .send();
    sandbox.run_root("mkdir -p /home/user/n; echo old > /home/user/n/b");
    let body = json!({"source": "a", "destination": "n/m/b"});
    let moved = sandbox.call("filesystem.Filesystem/Move", &body).json();
    assert_eq!(moved["entry"]["path"], "/home/user/n/m/b");
    assert_eq!(moved["entry"]["metadata"], json!({"k": "v"}));
    let body = json!({"source": "n/m/b", "destination": "n/b"});
    assert_eq!(
        sandbox.call("filesystem.Filesystem/Move", &body).status,
        200
    );
    assert_eq!(sandbox.run("cat n/b"), "new");
    let again = sandbox.call("filesystem.Filesystem/Move", &body);
    again.assert_rpc_error(404, "not_found", "source file not found");
    for _ in 0..2 {
        let removed = sandbox.call("filesystem.Filesystem/Remove", &json!({"path": "n"}));
        assert_eq!(removed.json(), json!({}));
    }
    assert!(list(&sandbox, "", 1).is_empty());
}
