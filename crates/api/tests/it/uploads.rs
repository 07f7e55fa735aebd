//! Checks 12-15 of the contract of templates.

use axum::body::Body;
use http::{Request, Uri};
use serde_json::{Value, json};

use crate::server::{Answer, MAX_ARCHIVE, Server};

fn hash(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

impl Server {
    async fn files(&self, template: &str, hash: &str) -> Value {
        let path = format!("/templates/{template}/files/{hash}");
        let request = Request::get(&path)
            .header("x-api-key", &self.key)
            .header("host", "api.example.org:3000");
        self.send(request.body(Body::empty()).unwrap())
            .await
            .expect(201)
    }

    /// Sends an archive as clients do: no key, no content type.
    async fn upload(&self, method: &str, url: &str, length: Option<u64>, body: Body) -> Answer {
        let uri: Uri = url.parse().unwrap();
        let path = uri.path_and_query().unwrap().to_string();
        let mut request = Request::builder().method(method).uri(path);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        self.send(request.body(body).unwrap()).await
    }
}

#[tokio::test]
async fn hashes_and_templates_are_checked() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    for bad in [&hash('a')[1..], &hash('A'), &hash('g')] {
        let path = format!("/templates/{}/files/{bad}", build.template);
        assert_eq!(server.get(&path).await.error(400), "Invalid files hash");
    }
    let other = server.other_key().await;
    for (key, template) in [
        (&server.key, "nope"),
        (&server.key, "t"),
        (&other, &build.template),
    ] {
        let path = format!("/templates/{template}/files/{}", hash('a'));
        let text = server.call_as(key, "GET", &path, None).await.error(404);
        assert!(text.starts_with("Error when getting template:"), "{text}");
    }
}

#[tokio::test]
async fn an_archive_belongs_to_the_team() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let absent = server.files(&build.template, &hash('a')).await;
    assert_eq!(absent["present"], json!(false));
    let url = absent["url"].as_str().unwrap();
    assert!(
        url.starts_with("http://api.example.org:3000/upload?"),
        "{url}"
    );
    server
        .upload("PUT", url, Some(3), Body::from("abc"))
        .await
        .expect(200);
    let present = server.files(&build.template, &hash('a')).await;
    assert_eq!(present["present"], json!(true));
    let again = present["url"].as_str().unwrap();
    server
        .upload("PUT", again, Some(4), Body::from("abcd"))
        .await
        .expect(200);
    let second = server.request(json!({"name": "t2"})).await;
    assert_eq!(
        server.files(&second.template, &hash('a')).await["present"],
        json!(true)
    );

    let other = server.other_key().await;
    let body = Some(json!({"name": "t"}));
    let theirs = server
        .call_as(&other, "POST", "/v3/templates", body)
        .await
        .expect(202);
    let path = format!(
        "/templates/{}/files/{}",
        theirs["templateID"].as_str().unwrap(),
        hash('a')
    );
    let request = Request::get(&path)
        .header("x-api-key", &other)
        .header("host", "h");
    let answer = server
        .send(request.body(Body::empty()).unwrap())
        .await
        .expect(201);
    assert_eq!(answer["present"], json!(false));

    let steps = [
        json!({"type": "RUN", "args": ["x"], "filesHash": hash('a')}),
        json!({"type": "RUN", "args": ["x"], "filesHash": hash('b')}),
    ];
    server.start_build(&build, &steps).await.expect(202);
    server.ended(&build).await;
    let files = server
        .builder
        .requests
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .files
        .clone();
    assert_eq!(files.len(), 1, "one of the two was never uploaded");
    assert_eq!(std::fs::read(&files[&hash('a')]).unwrap(), b"abcd");
}

#[tokio::test]
async fn bad_uploads_leave_nothing() {
    let server = Server::start().await;
    let build = server.request(json!({"name": "t"})).await;
    let url = server.files(&build.template, &hash('a')).await["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let put = async |url: &str, length: Option<u64>, body: Body| {
        server
            .upload("PUT", url, length, body)
            .await
            .status
            .as_u16()
    };
    let replaced = |name: &str, value: &str| {
        let (base, query) = url.split_once('?').unwrap();
        let pairs = query.split('&').map(|pair| {
            let (key, _) = pair.split_once('=').unwrap();
            if key == name {
                format!("{key}={value}")
            } else {
                pair.to_owned()
            }
        });
        format!("{base}?{}", pairs.collect::<Vec<_>>().join("&"))
    };
    assert_eq!(
        put(&replaced("signature", &hash('0')), Some(1), Body::from("x")).await,
        403
    );
    assert_eq!(
        put(
            &replaced("expires", "99999999999"),
            Some(1),
            Body::from("x")
        )
        .await,
        403
    );
    for (name, value) in [
        ("path", "..%2F..%2Fetc%2Fpasswd"),
        ("path", ""),
        ("expires", "soon"),
        ("signature", ""),
    ] {
        let refused = put(&replaced(name, value), Some(1), Body::from("x")).await;
        assert_eq!(refused, 400, "{name}={value}");
    }
    for method in ["GET", "POST", "DELETE"] {
        let answer = server.upload(method, &url, Some(1), Body::from("x")).await;
        assert_eq!(answer.status, 405, "{method}");
    }
    assert_eq!(put(&url, None, Body::from("x")).await, 411);
    assert_eq!(put(&url, Some(5), Body::from("x")).await, 400);
    assert_eq!(put(&url, Some(MAX_ARCHIVE + 1), Body::from("x")).await, 413);
    let pieces: [Result<&str, std::io::Error>; 2] =
        [Ok("abc"), Err(std::io::ErrorKind::ConnectionReset.into())];
    let cut = Body::from_stream(futures_util::stream::iter(pieces));
    assert_eq!(put(&url, Some(6), cut).await, 400);
    assert_eq!(
        server.files(&build.template, &hash('a')).await["present"],
        json!(false)
    );
    let team = server
        .dir
        .path()
        .join("blobs")
        .join(server.team.id.to_string());
    assert_eq!(std::fs::read_dir(team).unwrap().count(), 0);
    assert_eq!(put(&url, Some(1), Body::from("x")).await, 200);
}
