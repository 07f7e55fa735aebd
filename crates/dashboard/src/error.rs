//! Failures as pages.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use warren_control::{
    AuthError, ListError, ObserveError, SandboxError, TemplateError, TimeoutError,
};
use warren_service::Chain;

/// Why a page can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// Nobody is signed in.
    #[error("sign in first")]
    SignedOut,
    /// No such thing, or another team's.
    #[error("{0} not found")]
    NotFound(String),
    /// The request is not one that a page makes.
    #[error("{0}")]
    Refused(String),
    /// The server failed.
    #[error("the page can't be shown")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    team: Option<String>,
    section: &'static str,
    message: String,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::SignedOut => return Redirect::to("/dashboard/sign-in").into_response(),
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Internal(_) => {
                tracing::error!(error = %Chain(&self), "a page failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let page = ErrorPage {
            team: None,
            section: "",
            message: self.to_string(),
        };
        match page.render() {
            Ok(html) => (status, Html(html)).into_response(),
            Err(_) => status.into_response(),
        }
    }
}

impl From<askama::Error> for PageError {
    fn from(error: askama::Error) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<SandboxError> for PageError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::NotFound(id) | SandboxError::Ended { id, .. } => {
                Self::NotFound(format!("sandbox {id}"))
            }
            other => Self::Internal(Box::new(other)),
        }
    }
}

impl From<TimeoutError> for PageError {
    fn from(error: TimeoutError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ListError> for PageError {
    fn from(error: ListError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<ObserveError> for PageError {
    fn from(error: ObserveError) -> Self {
        Self::NotFound(error.to_string())
    }
}

impl From<TemplateError> for PageError {
    fn from(error: TemplateError) -> Self {
        Self::NotFound(error.to_string())
    }
}

impl From<AuthError> for PageError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(source) => Self::Internal(Box::new(source)),
            _ => Self::SignedOut,
        }
    }
}
