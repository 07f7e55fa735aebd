//! Templates as container images. Not of E2B's API.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, header};
use tokio::io::AsyncReadExt;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::PathText;
use crate::router::App;

/// Bytes that are read at a time.
const PIECE: usize = 128 * 1024;

/// `GET /templates/{templateID}/image`: an OCI image layout in a tar archive.
pub(crate) async fn export(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(reference): PathText,
) -> Result<Response, ApiError> {
    let file = app.control.template_image(&caller, &reference).await?;
    let file = tokio::fs::File::from_std(file);
    let metadata = file.metadata().await;
    let length = metadata.map_err(|error| ApiError::internal(&error))?.len();
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<Option<(Bytes, _)>, std::io::Error>((read > 0).then(|| (piece.freeze(), file)))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let kind = HeaderValue::from_static("application/x-tar");
    headers.insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
