//! The network of an instance.
//!
//! ```text
//!  sandbox netns            router netns (one per instance)        host
//!  eth0 100.64.x.y/31 ───── sN    nft: who may go where     up0 ── wrnHASH
//!  lo   127.0.0.1, ::1      lo    192.0.2.1: DNS, events           masquerade
//! ```
//!
//! Egress leaves through the router, whose rules decide; what needs a look at names they hand
//! to a broker at 192.0.2.1, with all that they refuse of TCP, so that it can be told of. The
//! host's own firewall gets one small table. Ingress uses none of this: a thread enters the sandbox's namespace, makes
//! the socket there and hands it back.

mod host;
mod refused;
mod router;
mod rules;

pub use refused::{Refused, RefusedLog};
pub(crate) use router::{Network, SERVICE_ADDRESS};
pub use rules::Why;
pub(crate) use rules::{BLOCKED, BROKER_PORT};
