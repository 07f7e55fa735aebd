//! Sends signed events to addresses that teams name.
//!
//! The address is hostile: it may lead into the operator's network, answer slowly, for ever
//! or with a redirect. Names are resolved here and only public addresses are connected to,
//! unless the operator allows private ones; redirects are not followed; time and size are
//! bounded; nothing of the answer but its status is told.

mod address;
mod send;
mod sign;

pub use address::{UrlError, check_url};
pub use send::{Message, SendError, Sender, SenderConfig, SetupError};
pub use sign::{SIGNATURE, TIMED_SIGNATURE, plain, timed};
