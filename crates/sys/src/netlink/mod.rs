//! Netlink: links, addresses, routes ([`rtnl`]) and firewall sets ([`nft`]).

pub mod message;
pub mod nft;
pub mod rtnl;
mod socket;

pub use socket::Socket;
