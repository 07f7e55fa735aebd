//! Netlink: links, addresses, routes ([`rtnl`]), firewall sets ([`nft`]) and what rules of
//! the firewall tell ([`nflog`]).

pub mod message;
pub mod nflog;
pub mod nft;
pub mod rtnl;
mod socket;

pub use socket::Socket;
