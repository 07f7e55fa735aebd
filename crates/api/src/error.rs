//! From refusals of the use cases to answers.

use std::borrow::Cow;
use std::error::Error;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use warren_control::{
    AuthError, BuildRequestError, BuildStartError, BuildStatusError, CreateError,
    DeleteTemplateError, FilesError, ForkError, IdempotencyError, ListError, ManageError,
    ObserveError, PauseError, RequestBuildError, SandboxError, SnapshotError, TemplateError,
    TemplateImageError, UploadError,
};
use warren_service::Chain;
use warren_types::EndReason;
use warren_wire::ErrorBody;

use crate::trail::Told;

/// All that is said of a fault of ours; the cause is in the log.
pub(crate) const INTERNAL: &str = "internal server error";
/// When a client may ask again whose request found no room: others end all the time.
const RETRY_AFTER_S: u64 = 2;
const CAPACITY: &str = "sandbox_capacity_unavailable";

/// Tells clients whether to send the request again by themselves.
static SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: Cow<'static, str>,
    code: Option<&'static str>,
    should_retry: Option<bool>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            code: None,
            should_retry: None,
            retry_after_s: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The request is not of the form that the specification asks for.
    pub(crate) fn validation(why: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("validation error: {why}"))
    }

    /// A fault of ours; its cause goes to the log and nowhere else.
    pub(crate) fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = %Chain(error), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL).code("internal_server_error")
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn should_retry(mut self, yes: bool) -> Self {
        self.should_retry = Some(yes);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// What is told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// A mistake of the client, told in the error's own words.
    pub(crate) fn told(status: StatusCode, error: &impl ToString) -> Self {
        Self::new(status, error.to_string())
    }
}

impl ApiError {
    /// The body alone, where it is a part of an answer.
    pub(crate) fn into_body(self) -> ErrorBody {
        ErrorBody {
            code: self.status.as_u16(),
            message: self.message.into_owned(),
            error_code: self.code.map(str::to_owned),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, should_retry, retry_after_s) =
            (self.status, self.should_retry, self.retry_after_s);
        let told = Told(self.message.clone().into_owned());
        let mut response = crate::extract::json(status, &self.into_body());
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        if let Some(yes) = should_retry {
            let value = HeaderValue::from_static(if yes { "true" } else { "false" });
            headers.insert(SHOULD_RETRY.clone(), value);
        }
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match &error {
            AuthError::Store(_) => Self::internal(&error),
            AuthError::NoMember | AuthError::ReadOnly | AuthError::Blocked | AuthError::Banned => {
                Self::told(StatusCode::FORBIDDEN, &error)
            }
            AuthError::TooManyKeys => {
                Self::told(StatusCode::TOO_MANY_REQUESTS, &error).should_retry(false)
            }
            _ => Self::told(StatusCode::UNAUTHORIZED, &error),
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        use TemplateError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound(_) | E::Tag { .. } | E::NoSuchId(_) => StatusCode::NOT_FOUND,
            E::ForeignAlias | E::Foreign(_) => StatusCode::FORBIDDEN,
            // It takes minutes.
            E::Unprepared { .. } => {
                return Self::told(StatusCode::SERVICE_UNAVAILABLE, &error).should_retry(false);
            }
            E::Reference(_) | E::Namespace { .. } | E::TeamMismatch | E::Page(_) => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::told(status, &error)
    }
}

impl From<TemplateImageError> for ApiError {
    fn from(error: TemplateImageError) -> Self {
        use TemplateImageError as E;
        match error {
            E::Template(error) => error.into(),
            E::Refused(_) => Self::told(StatusCode::BAD_REQUEST, &error),
            E::NoBuilder => Self::told(StatusCode::SERVICE_UNAVAILABLE, &error),
            E::Export(_) => Self::internal(&error),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        use CreateError as E;
        match error {
            E::Store(_) => Self::internal(&error).code("sandbox_create_failed"),
            E::Template(error) => error.into(),
            E::Node(error) => node_refused(&error),
            // Waiting a few seconds does not cure it.
            E::Quota(_) => Self::told(StatusCode::TOO_MANY_REQUESTS, &error).should_retry(false),
            E::Timeout(_)
            | E::AutoPauseMemory
            | E::AutoPauseResume
            | E::PrivateNeedsSecure
            | E::Network(_)
            | E::VolumeMounts
            | E::Mounts(_)
            | E::Iam
            | E::IamTokens(_)
            | E::EnvVar(_)
            | E::TooLarge { .. } => Self::told(StatusCode::BAD_REQUEST, &error),
        }
    }
}

/// Why a node made no sandbox. Details are for the operator only.
fn node_refused(error: &warren_control::NodeError) -> ApiError {
    use warren_control::NodeError as E;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        E::NoCapacity(_) => {
            tracing::warn!(error = %Chain(error), "no room for a sandbox");
            ApiError::new(unavailable, "Failed to place sandbox: no room on the node")
                .code(CAPACITY)
                .retry_after(RETRY_AFTER_S)
        }
        E::Volume(_) => volume_unavailable(error),
        E::Stopping => ApiError::new(
            unavailable,
            "Failed to place sandbox: the server is stopping",
        )
        .code(CAPACITY)
        .retry_after(RETRY_AFTER_S),
        E::LayerMissing(_) => {
            tracing::error!(error = %Chain(error), "a template is incomplete");
            ApiError::new(
                unavailable,
                "Failed to place sandbox: no node has the template",
            )
            .code("sandbox_no_compatible_node")
            .should_retry(false)
        }
        _ => {
            tracing::error!(error = %Chain(error), "a sandbox did not start");
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Failed to create sandbox",
            )
            .code("sandbox_create_failed")
        }
    }
}

impl From<SandboxError> for ApiError {
    fn from(error: SandboxError) -> Self {
        use SandboxError as E;
        let status = match &error {
            E::Node(error @ warren_control::NodeError::Volume(_)) => {
                return volume_unavailable(error);
            }
            E::Store(_) | E::Node(_) => return Self::internal(&error),
            E::NotFound(_) => StatusCode::NOT_FOUND,
            E::Ended { end, .. } => {
                return Self::told(StatusCode::NOT_FOUND, &error).code(end_code(end.reason));
            }
            E::Ending(_) | E::Changing { .. } | E::Running(_) => StatusCode::CONFLICT,
            E::StartInFlight(_) => {
                return Self::told(StatusCode::CONFLICT, &error).code("sandbox_start_in_flight");
            }
            E::GuestSilent(_) => {
                return Self::told(StatusCode::CONFLICT, &error)
                    .code("sandbox_snapshot_guest_agent_unresponsive");
            }
            E::BootUnconfirmed { .. } => {
                tracing::error!(error = %Chain(&error), "a boot from files failed");
                return Self::told(StatusCode::SERVICE_UNAVAILABLE, &error)
                    .code("sandbox_filesystem_boot_unconfirmed");
            }
            // Waiting a few seconds does not cure it.
            E::Quota(_) => {
                return Self::told(StatusCode::TOO_MANY_REQUESTS, &error).should_retry(false);
            }
            E::Timeout(_) | E::MaxLength | E::Network(_) => StatusCode::BAD_REQUEST,
        };
        Self::told(status, &error)
    }
}

/// A volume's storage can't be reached, or another server keeps it: nothing was changed.
fn volume_unavailable(error: &warren_control::NodeError) -> ApiError {
    let text = format!("Failed to place sandbox: {error}");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text).code("sandbox_volume_unavailable")
}

/// Why a sandbox is gone, for programs.
fn end_code(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Killed => "sandbox_killed",
        EndReason::TimedOut => "sandbox_timed_out",
        EndReason::OutOfMemory => "sandbox_out_of_memory",
        EndReason::Crashed => "sandbox_crashed",
        EndReason::HostRestarted => "sandbox_host_restarted",
        EndReason::Evicted => "sandbox_evicted",
        EndReason::StartFailed => "sandbox_start_failed",
    }
}

impl From<PauseError> for ApiError {
    fn from(error: PauseError) -> Self {
        use PauseError as E;
        let status = match error {
            E::Sandbox(error) => return error.into(),
            E::Store(_) => return Self::internal(&error),
            E::DiskFull { .. } | E::Failed { .. } => {
                tracing::error!(error = %Chain(&error), "a pause failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            E::AlreadyPaused(_) => StatusCode::CONFLICT,
            E::AgentSilent(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::told(status, &error)
    }
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        use SnapshotError as E;
        let status = match error {
            E::Sandbox(error) => return error.into(),
            E::Template(error) => return error.into(),
            E::Store(_) => return Self::internal(&error),
            E::DiskFull { .. } | E::Failed { .. } => {
                tracing::error!(error = %Chain(&error), "a snapshot failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            E::Transition { .. } | E::NameTaken(_) => StatusCode::CONFLICT,
            E::Name(_) | E::TagIsBuild(_) => StatusCode::BAD_REQUEST,
        };
        Self::told(status, &error)
    }
}

impl From<ForkError> for ApiError {
    fn from(error: ForkError) -> Self {
        use ForkError as E;
        let status = match error {
            E::Sandbox(error) => return error.into(),
            E::Create(error) => return error.into(),
            E::Store(_) => return Self::internal(&error),
            E::Failed { .. } => {
                tracing::error!(error = %Chain(&error), "a fork failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
            E::Paused(_) | E::Transition { .. } => StatusCode::CONFLICT,
            E::TooFew | E::TooMany(_) | E::Limit(_) | E::Timeout(_) => StatusCode::BAD_REQUEST,
        };
        Self::told(status, &error)
    }
}

impl From<ListError> for ApiError {
    fn from(error: ListError) -> Self {
        match &error {
            ListError::Store(_) => Self::internal(&error),
            _ => Self::told(StatusCode::BAD_REQUEST, &error),
        }
    }
}

impl From<ObserveError> for ApiError {
    fn from(error: ObserveError) -> Self {
        use ObserveError as E;
        let status = match &error {
            E::Store(_) | E::Node(_) => return Self::internal(&error),
            E::NotFound(_) => StatusCode::NOT_FOUND,
            E::Range | E::TeamRange | E::TooMany(_) => StatusCode::BAD_REQUEST,
            E::ForeignTeam { .. } => StatusCode::FORBIDDEN,
        };
        Self::told(status, &error)
    }
}

impl From<BuildRequestError> for ApiError {
    fn from(error: BuildRequestError) -> Self {
        use BuildRequestError as E;
        let status = match &error {
            E::Store(_) | E::Refused(RequestBuildError::Store(_)) => return Self::internal(&error),
            E::Refused(RequestBuildError::NameIsId(_)) => StatusCode::CONFLICT,
            E::Refused(RequestBuildError::NameTaken(_)) => StatusCode::FORBIDDEN,
            E::TooMany(_) => {
                return Self::told(StatusCode::TOO_MANY_REQUESTS, &error).should_retry(false);
            }
            E::NoName | E::Name(_) | E::Namespace { .. } | E::Tag(_) | E::Resources(_) => {
                StatusCode::BAD_REQUEST
            }
        };
        Self::told(status, &error)
    }
}

impl From<BuildStartError> for ApiError {
    fn from(error: BuildStartError) -> Self {
        use BuildStartError as E;
        let status = match &error {
            E::Store(_) | E::Log(_) | E::Archives(_) => return Self::internal(&error),
            E::Id(_) | E::NotWaiting => StatusCode::BAD_REQUEST,
            E::Unknown { .. } => StatusCode::NOT_FOUND,
            E::Foreign => StatusCode::FORBIDDEN,
            E::NoBuilder => StatusCode::SERVICE_UNAVAILABLE,
            E::Source(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::told(status, &error)
    }
}

impl From<BuildStatusError> for ApiError {
    fn from(error: BuildStatusError) -> Self {
        use BuildStatusError as E;
        let status = match &error {
            E::Store(_) | E::Log(_) => return Self::internal(&error),
            E::Id | E::Unknown(_) => StatusCode::BAD_REQUEST,
            E::Foreign(_) => StatusCode::FORBIDDEN,
        };
        Self::told(status, &error)
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        use FilesError as E;
        let status = match &error {
            E::Store(_) | E::Disk(_) => return Self::internal(&error),
            E::Hash => StatusCode::BAD_REQUEST,
            E::Template(_) => StatusCode::NOT_FOUND,
            E::NoBuilder => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::told(status, &error)
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        use UploadError as E;
        let status = match &error {
            E::Disk(_) => return Self::internal(&error),
            E::Path | E::Length => StatusCode::BAD_REQUEST,
            E::Signature | E::Expired => StatusCode::FORBIDDEN,
            E::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            E::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            E::NoBuilder => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::told(status, &error)
    }
}

impl From<ManageError> for ApiError {
    fn from(error: ManageError) -> Self {
        use DeleteTemplateError as D;
        use ManageError as E;
        let status = match &error {
            E::Store(_) | E::Delete(D::Store(_)) => return Self::internal(&error),
            E::NotFound(_) | E::Target { .. } | E::Delete(D::Gone(_)) => StatusCode::NOT_FOUND,
            E::Foreign(_) => StatusCode::FORBIDDEN,
            E::PublicName { .. } => StatusCode::CONFLICT,
            E::Delete(D::Running(_) | D::Paused(_))
            | E::Reference(_)
            | E::Namespace { .. }
            | E::Tag(_)
            | E::NoTags
            | E::DefaultTag
            | E::NameHasTag => StatusCode::BAD_REQUEST,
        };
        Self::told(status, &error)
    }
}

impl From<IdempotencyError> for ApiError {
    fn from(error: IdempotencyError) -> Self {
        use IdempotencyError as E;
        let conflict = StatusCode::CONFLICT;
        match &error {
            E::Key => Self::told(StatusCode::BAD_REQUEST, &error),
            E::Mismatch => Self::told(conflict, &error).code("idempotency_request_mismatch"),
            E::InProgress => Self::told(conflict, &error).code("idempotency_in_progress"),
            E::Unknown => Self::told(StatusCode::UNPROCESSABLE_ENTITY, &error)
                .code("idempotency_outcome_unknown"),
            E::Store(_) => {
                tracing::error!(error = %Chain(&error), "idempotency keys are unavailable");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Idempotency is unavailable, retry",
                )
            }
        }
    }
}
