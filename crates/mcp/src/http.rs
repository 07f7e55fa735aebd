//! The server over HTTP, for agents that can't start a program.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use warren_client::Client;
use warren_service::Secret;

use crate::{McpError, Settings, Tools};

/// Serves `/mcp` until `stop`. Every request must bear `key`, as `Authorization: Bearer KEY`.
/// All conversations share the sandbox of tools that are given none.
///
/// # Errors
/// Connections can't be accepted, or the shared sandbox is not killed.
pub async fn serve_http(
    listener: TcpListener,
    client: Client,
    key: Secret,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), McpError> {
    let tools = Tools::new(client, settings);
    let shared = tools.clone();
    // Who has the key may come by any name; the key is what other web pages lack.
    let config = StreamableHttpServerConfig::default().disable_allowed_hosts();
    let service: StreamableHttpService<Tools, LocalSessionManager> =
        StreamableHttpService::new(move || Ok(shared.clone()), Arc::default(), config);
    let router = axum::Router::new()
        .nest_service("/mcp", service)
        .layer(from_fn_with_state(Arc::new(key), authorized));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop)
        .await;
    tools.end().await.map_err(McpError::Kill)?;
    served.map_err(McpError::Listen)
}

async fn authorized(State(key): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match shown {
        Some(shown) if bool::from(shown.as_bytes().ct_eq(key.expose().as_bytes())) => {
            next.run(request).await
        }
        _ => (
            StatusCode::UNAUTHORIZED,
            "Send the API key: Authorization: Bearer KEY",
        )
            .into_response(),
    }
}
