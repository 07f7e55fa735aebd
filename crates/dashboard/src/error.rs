//! Failures as pages.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use warren_control::{
    AuthError, ListError, ObserveError, SandboxError, TemplateError, TimeoutError,
};
use warren_service::Chain;

use crate::session::Frame;

/// Why a page can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// Nobody is signed in.
    #[error("sign in first")]
    SignedOut {
        /// The page that was asked for.
        then: Option<String>,
    },
    /// A form that no page of this session made.
    #[error("the form is out of date; go back, reload the page and try again")]
    Forged,
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
    frame: Option<Frame>,
    message: String,
}

fn to_sign_in(then: Option<&str>) -> Redirect {
    let query = then.and_then(|then| serde_urlencoded::to_string([("then", then)]).ok());
    match query {
        Some(query) if then != Some("/dashboard") => {
            Redirect::to(&format!("/dashboard/sign-in?{query}"))
        }
        _ => Redirect::to("/dashboard/sign-in"),
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::SignedOut { then } => return to_sign_in(then.as_deref()).into_response(),
            Self::Forged => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Internal(_) => {
                tracing::error!(error = %Chain(&self), "a page failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let page = ErrorPage {
            frame: None,
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
            _ => Self::SignedOut { then: None },
        }
    }
}
