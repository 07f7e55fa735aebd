//! What the host serves to sandboxes at one fixed address: the events service. Its
//! listener lives in the router's network namespace, out of the reach of
//! everything else on the host.

mod events;

pub use events::Events;
