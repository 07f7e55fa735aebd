//! What the host serves to sandboxes at one fixed address: name resolution and the events
//! service. The listeners live in the router's network namespace, out of the reach of
//! everything else on the host.

mod dns;
mod events;

pub use dns::{Dns, DnsError};
pub use events::Events;
