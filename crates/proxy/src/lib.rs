//! Edge proxy: carries HTTP requests and switched protocols to ports inside sandboxes.
//!
//! It owns the reading of hosts and routing headers, the refusals that clients match on,
//! the rules for who may pass, forwarding, and the listener that serves all of it. It does
//! not know where sandboxes run: a [`RouteSource`] tells, and may resume one meanwhile.
//!
//! A connection to a guest belongs to one request of one run of a sandbox. It is closed
//! when the client goes away, and reset when the run ends; the [`RouteSource`] must stop
//! returning a route before it cancels the route's run. Responses that are cut never end
//! cleanly, so that no client takes a part for the whole.

mod access;
mod body;
mod dial;
mod exchange;
mod forward;
mod head;
mod heard;
mod html;
mod internal;
mod limit;
mod listener;
mod refusal;
mod source;
mod stream;
mod target;
mod tunnel;
mod unread;
mod watchdog;

pub use access::{ACCESS_TOKEN_HEADER, TRAFFIC_ACCESS_TOKEN_HEADER};
pub use body::{BodyError, ProxyBody};
pub use forward::{Proxy, ProxyConfig};
pub use internal::{check_path_input, clean_path, reserved_route};
pub use limit::ConnectionLimit;
pub use listener::{ListenerConfig, serve};
pub use source::{Ask, Dial, Resolution, Route, RouteSource};
pub use target::{
    SANDBOX_ID_HEADER, SANDBOX_PORT_HEADER, Target, TargetError, check_host_input,
    is_sandbox_traffic, parse_target, request_host,
};
pub use unread::{Unread, Watched, watch};
