//! Isolation with Linux namespaces.
//!
//! ```text
//!  server process                       helper (1 thread)         shim, later the sandbox
//!  refill thread ── make ──────────────► clone3 into 7 new ──────► waits
//!    cgroups, veth, ◄── pidfd, netns ───  namespaces, id maps
//!    "prepare" ───────────────────────────────────────────────────► network, /proc /sys /dev,
//!    pool of shims ◄──────────────────────────────────────── done ─ bounded capabilities
//!
//!  boot: take a shim and a disk, set limits and policy,
//!    join id-mapped layers and disk
//!    "launch" + root, agent, pipes ───────────────────────────────► attach root, pivot,
//!    wait for the ready pipe ◄──────────────── agent listens ────── seccomp, exec the agent
//! ```
//!
//! A sandbox is no child of the server and has nothing from it but its disk, so it outlives
//! server and helper: [`Runtime::adopt`](crate::Runtime::adopt) takes it over again. A shim
//! that is no sandbox yet exits when its socket to the server closes. Everything on the host
//! is named after the instance (the data directory), so that a sweep finds what a crash
//! left; disks are mounted without a place in the mount table and vanish with their users.
//!
//! Every piece a sandbox has is in `Parts` from the moment it exists. A failure at any step,
//! and a dropped future, drop them, upon which the janitor releases them.

mod adopt;
mod attach;
mod boot;
mod capture;
mod cgroup;
mod commit;
mod config;
mod core;
mod criu;
mod dial;
mod disk;
mod helper;
mod instance;
mod net;
mod parts;
mod probe;
mod protocol;
mod rootfs;
mod runtime;
mod sandbox;
mod shim;
mod shims;
mod slot;
mod step;
mod worker;

pub use config::{NsConfig, Overlay};
pub use criu::{PrepareError, Preparing, SHARED_TOOLS, TOOLS, TOOLS_ROOT, prepare_tools};
pub use helper::helper_main;
pub use instance::RUN_DIR;
pub use net::{Refused, RefusedLog, Why};
pub use probe::{Check, probe};
pub use runtime::{NsRuntime, RUNTIME_NAME};
pub use sandbox::NsSandbox;
pub use step::Step;

/// First argument that makes the server's program run as the helper.
pub const HELPER_COMMAND: &str = "shim-helper";

/// Address, in every sandbox's network, of the services that the node offers: name
/// resolution on port 53 and events on port 80. Sockets for it are bound with
/// [`NsRuntime::bind_udp`] and [`NsRuntime::bind_tcp`].
pub const SERVICE_ADDRESS: std::net::Ipv4Addr = net::SERVICE_ADDRESS;

/// Port on [`SERVICE_ADDRESS`] that the router takes connections of sandboxes to: those that
/// names decide on, and those that it refuses. Where they were to go is the original
/// destination of the accepted socket.
pub const BROKER_PORT: u16 = net::BROKER_PORT;
