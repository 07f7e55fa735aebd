//! The sandbox's variables, which its agent knows.

use http::HeaderValue;
use warren_service::Tasks;

use crate::fetch::{self, FetchError};
use crate::language::{Vars, is_valid};

/// Asks the agent at `address` for the sandbox's variables.
///
/// # Errors
/// The agent can't be asked or refuses.
pub(crate) async fn fetch(
    address: &str,
    token: Option<&HeaderValue>,
    tasks: &Tasks,
) -> Result<Vars, FetchError> {
    let mut vars: Vars = fetch::get(address, "/envs", token, tasks).await?;
    vars.retain(|name, value| is_valid(name, value));
    Ok(vars)
}
