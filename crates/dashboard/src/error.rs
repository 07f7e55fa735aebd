//! Failures as pages.

use std::error::Error;

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use warren_control::{
    AuthError, BuildStatusError, CreateError, ForkError, KeysError, ListError, ManageError,
    PauseError, SandboxError, SecretsError, SnapshotError, SshKeyError, TeamsError, TemplateError,
    UsersError, VolumesError, WebhookError,
};
use warren_service::Chain;

use crate::visitor::Frame;

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
    /// They are in the team no more that they had chosen; the next page is of another.
    #[error("you are in this team no more")]
    LeftTeam,
    /// Another team was chosen than that of the page that asks.
    #[error("you have gone over to another team since this page was made")]
    OtherTeam,
    /// Not for this visitor.
    #[error("{0}")]
    Forbidden(String),
    /// No such thing, or another team's.
    #[error("{0} not found")]
    NotFound(String),
    /// A sandbox that has ended, and is remembered.
    #[error("this sandbox has ended")]
    Ended(warren_types::SandboxId),
    /// The request is not one that can be met.
    #[error("{0}")]
    Refused(String),
    /// The server failed at something.
    #[error("{what}")]
    Failed {
        /// At what.
        what: String,
        /// The cause.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The server failed.
    #[error("the page can't be shown")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
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
            Self::LeftTeam => return Redirect::to("/dashboard").into_response(),
            Self::OtherTeam => StatusCode::CONFLICT,
            Self::Forged | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::Ended(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Failed { .. } | Self::Internal(_) => {
                tracing::error!(error = %Chain(&self), "a page failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let told = Told(self.to_string());
        let mut response = told.page(status, None);
        response.extensions_mut().insert(told);
        response
    }
}

/// What a page tells of an error, for whoever puts it into the surroundings of others.
#[derive(Debug, Clone)]
pub(crate) struct Told(String);

impl Told {
    /// The page.
    pub(crate) fn page(&self, status: StatusCode, frame: Option<Frame>) -> Response {
        let page = ErrorPage {
            frame,
            message: self.0.clone(),
        };
        match page.render() {
            Ok(html) => (status, Html(html)).into_response(),
            Err(_) => status.into_response(),
        }
    }
}

/// What a use case refused is told in its words. One that has a cause is a failure of the
/// server.
pub(crate) fn refused<E: Error + Send + Sync + 'static>(error: E) -> PageError {
    if error.source().is_none() {
        return PageError::Refused(error.to_string());
    }
    PageError::Failed {
        what: error.to_string(),
        cause: Box::new(error),
    }
}

macro_rules! refusals {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for PageError {
            fn from(error: $error) -> Self {
                refused(error)
            }
        })+
    };
}

refusals!(
    warren_control::TimeoutError,
    warren_control::StoreError,
    warren_control::AuditError,
);

impl From<askama::Error> for PageError {
    fn from(error: askama::Error) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<SandboxError> for PageError {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::NotFound(id) => Self::NotFound(format!("sandbox {id}")),
            SandboxError::Ended { id, .. } => Self::Ended(id),
            other => refused(other),
        }
    }
}

impl From<PauseError> for PageError {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::Sandbox(error) => error.into(),
            other => refused(other),
        }
    }
}

impl From<warren_control::ObserveError> for PageError {
    fn from(error: warren_control::ObserveError) -> Self {
        match error {
            warren_control::ObserveError::NotFound(id) => Self::NotFound(format!("sandbox {id}")),
            other => refused(other),
        }
    }
}

impl From<ListError> for PageError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Store(_) => refused(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<ForkError> for PageError {
    fn from(error: ForkError) -> Self {
        match error {
            ForkError::Sandbox(error) => error.into(),
            ForkError::Create(error) => error.into(),
            other => refused(other),
        }
    }
}

impl From<SnapshotError> for PageError {
    fn from(error: SnapshotError) -> Self {
        match error {
            error @ SnapshotError::Name(_) => Self::Refused(error.to_string()),
            SnapshotError::Sandbox(error) => error.into(),
            other => refused(other),
        }
    }
}

impl From<CreateError> for PageError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Template(error) => error.into(),
            other => refused(other),
        }
    }
}

impl From<TemplateError> for PageError {
    fn from(error: TemplateError) -> Self {
        match error {
            TemplateError::NoSuchId(id) | TemplateError::Foreign(id) => {
                Self::NotFound(format!("template {id}"))
            }
            error @ TemplateError::Store(_) => refused(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<ManageError> for PageError {
    fn from(error: ManageError) -> Self {
        match error {
            ManageError::NotFound(name) | ManageError::Foreign(name) => {
                Self::NotFound(format!("template {name}"))
            }
            error @ ManageError::Reference(_) => Self::Refused(error.to_string()),
            other => refused(other),
        }
    }
}

impl From<BuildStatusError> for PageError {
    fn from(error: BuildStatusError) -> Self {
        match error {
            BuildStatusError::Id | BuildStatusError::Unknown(_) | BuildStatusError::Foreign(_) => {
                Self::NotFound("build".to_owned())
            }
            other => refused(other),
        }
    }
}

impl From<VolumesError> for PageError {
    fn from(error: VolumesError) -> Self {
        match error {
            VolumesError::NotFound => Self::NotFound("volume".to_owned()),
            other => refused(other),
        }
    }
}

impl From<WebhookError> for PageError {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::NotFound => Self::NotFound("webhook".to_owned()),
            error @ WebhookError::Store(_) => refused(error),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<SecretsError> for PageError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::NotFound => Self::NotFound("secret".to_owned()),
            other => refused(other),
        }
    }
}

impl From<KeysError> for PageError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::NotFound => Self::NotFound("key".to_owned()),
            KeysError::NoToken => Self::NotFound("token".to_owned()),
            error @ (KeysError::Scope | KeysError::Foreign) => Self::Forbidden(error.to_string()),
            other => refused(other),
        }
    }
}

impl From<SshKeyError> for PageError {
    fn from(error: SshKeyError) -> Self {
        match error {
            SshKeyError::NotFound => Self::NotFound("SSH key".to_owned()),
            other => refused(other),
        }
    }
}

impl From<TeamsError> for PageError {
    fn from(error: TeamsError) -> Self {
        match error {
            TeamsError::NotFound => Self::NotFound("team".to_owned()),
            other => refused(other),
        }
    }
}

impl From<UsersError> for PageError {
    fn from(error: UsersError) -> Self {
        match error {
            UsersError::NotFound => Self::NotFound("person".to_owned()),
            other => refused(other),
        }
    }
}

impl From<AuthError> for PageError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(source) => Self::Internal(Box::new(source)),
            other => refused(other),
        }
    }
}
