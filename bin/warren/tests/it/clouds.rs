//! Registries of clouds, which are signed in to with what their accounts have.

use std::convert::Infallible;
use std::net::SocketAddr;

use base64::Engine as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use warren_service::{Secret, Tasks};
use warren_template::RegistryConfig;
use warren_template::build::{RegistryCredentials, Source};

use crate::images::{ARCH, entry};
use crate::registry::{Layer, Registry};
use crate::support::{Stand, request};

const KEY_ID: &str = "AKIDEXAMPLE";
const KEY: &str = "the-key-of-the-account";
const TOKEN: &str = "a-token-of-the-registry";

/// What an image without a system in it fails with, once it is pulled.
const PULLED: &str = "error waiting for provisioning sandbox";

/// Gives tokens to who signs with the right key of the region `eu-west-1`.
async fn token_service(tasks: &Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = connections.stop_token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let service = service_fn(|request| async move { Ok::<_, Infallible>(token(&request)) });
            let stream = TokioIo::new(accepted.unwrap().0);
            let serving = hyper::server::conn::http1::Builder::new();
            connections.spawn(async move { serving.serve_connection(stream, service).await });
        }
    });
    address
}

fn token(request: &Request<Incoming>) -> Response<String> {
    let header = |name: &str| request.headers().get(name).unwrap().to_str().unwrap();
    let action = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
    assert_eq!(
        (request.method().as_str(), request.uri().path()),
        ("POST", "/")
    );
    assert_eq!(header("x-amz-target"), action);
    assert_eq!(header("content-type"), "application/x-amz-json-1.1");
    let day = &header("x-amz-date")[..8];
    let signed = header("authorization");
    let scope = format!("Credential={KEY_ID}/{day}/eu-west-1/ecr/aws4_request, ");
    if !signed.contains(&scope) {
        let fault = r#"{"__type":"UnrecognizedClientException","message":"no"}"#;
        let refused = Response::builder().status(StatusCode::BAD_REQUEST);
        return refused.body(fault.to_owned()).unwrap();
    }
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("AWS:{TOKEN}"));
    let answer = serde_json::json!({"authorizationData": [{"authorizationToken": pair}]});
    Response::new(answer.to_string())
}

fn aws(id: &str, region: &str) -> RegistryCredentials {
    RegistryCredentials::Aws {
        access_key_id: id.to_owned(),
        secret_access_key: Secret::new(KEY.to_owned()),
        region: region.to_owned(),
    }
}

fn gcp(json: &str) -> RegistryCredentials {
    RegistryCredentials::Gcp {
        service_account_json: Secret::new(json.to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_clouds_are_credentials_of_their_registries() {
    let tasks = Tasks::new();
    let account = r#"{"type":"service_account","private_key":"the key of google's"}"#;
    let registries = [
        Registry::for_user("AWS", TOKEN),
        Registry::for_user("_json_key", account),
    ];
    let [mut of_aws, mut of_gcp] = [None, None];
    for (registry, address) in registries.iter().zip([&mut of_aws, &mut of_gcp]) {
        let layer = Layer::plain(entry("etc/nothing", tar::EntryType::Regular, ""));
        registry.image("team/image", vec![layer], &[], ARCH);
        *address = Some(registry.clone().serve(&tasks).await);
    }
    let [of_aws, of_gcp] = [of_aws.unwrap(), of_gcp.unwrap()];
    let stand = Stand::start_for(RegistryConfig {
        insecure: vec![of_aws.to_string(), of_gcp.to_string()],
        ecr_endpoint: Some(format!("http://{}", token_service(&tasks).await)),
        ..RegistryConfig::default()
    })
    .await;
    for (address, credentials, expected) in [
        (of_aws, aws("AKIDOTHER", "eu-west-1"), "access denied to '"),
        (
            of_aws,
            aws(KEY_ID, "x.example/"),
            "\"x.example/\" is no AWS region",
        ),
        (of_aws, aws(KEY_ID, "eu-west-1"), PULLED),
        (of_gcp, gcp("{}"), "access denied to '"),
        (of_gcp, gcp(account), PULLED),
    ] {
        let mut request = request(Vec::new());
        request.source = Source::Image {
            reference: format!("{address}/team/image"),
            credentials: Some(credentials),
        };
        let failure = stand.build(request).await.unwrap_err();
        assert!(failure.message.contains(expected), "{expected}: {failure}");
        assert_eq!(failure.step.as_deref(), Some("base"));
        for secret in [KEY, TOKEN, "google's"] {
            assert!(!stand.heard(secret), "{secret} is in the log");
        }
    }
    tasks.stop(std::time::Duration::from_secs(5)).await;
    stand.stop().await;
}
