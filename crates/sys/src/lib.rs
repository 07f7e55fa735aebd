//! Raw system calls of the host side and every `unsafe` block that they need. No policy and
//! no async: functions do one thing and report an [`std::io::Error`]. What `rustix` offers
//! safely is called there and not repeated here.

pub mod caps;
pub mod clone;
pub mod creds;
pub mod exec;
pub mod fdpass;
pub mod fhandle;
pub mod loopdev;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod pidfd;
pub mod random;
pub mod seccomp;
