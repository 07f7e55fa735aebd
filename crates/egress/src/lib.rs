//! What leaves sandboxes by name: the broker that the router hands connections to, and the
//! resolver that sandboxes ask. Both run in the server, out of the reach of any sandbox; the
//! broker dials in the router's network, so it reaches nothing that a sandbox could not.
//!
//! ```text
//!  sandbox ── TCP 80, 443, and all that is refused ──► Broker ── Host, SNI ── policy
//!     │                                                  │ allowed by name
//!     └── queries ──► Dns ── policy ──► host's resolvers ◄── Resolver: the address
//! ```

mod broker;
mod check;
mod dns;
mod gate;
mod head;
mod hello;
mod http;
mod prefixed;
mod query;
mod refusals;
mod resolver;

pub use broker::{Broker, Limits};
pub use check::{check_head_input, check_hello_input, check_query_input};
pub use dns::{Dns, DnsError};
pub use gate::Gate;
pub use resolver::{ResolveError, Resolver};
