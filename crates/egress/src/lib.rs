//! What leaves sandboxes by name: the broker that the router hands connections to, and the
//! resolver that sandboxes ask. Both run in the server, out of the reach of any sandbox; the
//! broker dials in the router's network, so it reaches nothing that a sandbox could not.
//!
//! ```text
//!  sandbox ── TCP 80, 443, and all that is refused ──► Broker ── Host, SNI ── policy
//!     │                                                  │ allowed by name
//!     └── queries ──► Dns ── policy ──► host's resolvers ◄── Resolver: the address
//! ```
//!
//! Requests to hosts that have a header rule get its headers, also within TLS: there the
//! broker answers with a certificate of the sandbox's own authority, and verifies the host
//! itself. The [`Vault`] gives secrets for one request at a time. All other TLS passes
//! through unread.

mod authority;
mod broker;
mod check;
mod dns;
mod gate;
mod head;
mod headers;
mod hello;
mod http;
mod prefixed;
mod query;
mod refusals;
mod resolver;
mod trust;
mod tunnel;
mod upstream;
mod vault;

pub use authority::{Authority, AuthorityError, AuthorityKeys};
pub use broker::{Broker, Limits};
pub use check::{check_head_input, check_hello_input, check_query_input};
pub use dns::{Dns, DnsError};
pub use gate::{Gate, Identity};
pub use resolver::{ResolveError, Resolver};
pub use trust::{Trust, TrustError, is_trustable};
pub use vault::{Vault, VaultError};
