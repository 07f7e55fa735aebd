//! Links, addresses and routes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::Socket;
use super::message::{ACK, CREATE, EXCLUSIVE, Message};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const UP: u32 = 1;

fn link_header(index: u32, up: bool) -> Vec<u8> {
    let flags = if up { UP } else { 0 };
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// One end of a veth pair to be made, or another link by name.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is made: `None` is the namespace of the socket.
    pub netns: Option<BorrowedFd<'a>>,
}

fn named(message: Message, end: End<'_>, mtu: u32) -> Message {
    let message = message
        .text(IFLA_IFNAME, end.name)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes());
    match end.netns {
        Some(netns) => message.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes()),
        None => message,
    }
}

impl Socket {
    /// Makes a veth pair, each end in its namespace, in one request. The first end is up.
    ///
    /// # Errors
    /// `AlreadyExists` when a name is taken.
    pub fn veth_create(&mut self, one: End<'_>, other: End<'_>, mtu: u32) -> io::Result<()> {
        let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE).raw(&link_header(0, true));
        let message = named(message, one, mtu)
            .nest(IFLA_LINKINFO)
            .text(IFLA_INFO_KIND, "veth")
            .nest(IFLA_INFO_DATA)
            .nest(VETH_INFO_PEER)
            // Refused for a link that has no peer yet, as this one at that point.
            .raw(&link_header(0, false));
        self.request(named(message, other, mtu).end().end().end())
    }

    /// Deletes a link of the socket's namespace.
    ///
    /// # Errors
    /// `NotFound` (ENODEV) when there is none of that name.
    pub fn link_delete(&mut self, name: &str) -> io::Result<()> {
        let message = Message::new(DELETE_LINK, ACK).raw(&link_header(0, false));
        self.request(message.text(IFLA_IFNAME, name))
    }

    /// Moves a link of the socket's namespace to another. It is down there, with no address.
    ///
    /// # Errors
    /// As netlink answers; `AlreadyExists` when its name is taken there.
    pub fn link_move(&mut self, index: u32, netns: BorrowedFd<'_>) -> io::Result<()> {
        let message = Message::new(NEW_LINK, ACK).raw(&link_header(index, false));
        self.request(message.attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes()))
    }

    /// Sets a link of the socket's namespace up.
    ///
    /// # Errors
    /// As netlink answers.
    pub fn link_up(&mut self, index: u32) -> io::Result<()> {
        self.request(Message::new(NEW_LINK, ACK).raw(&link_header(index, true)))
    }

    /// Adds an address to a link of the socket's namespace.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there.
    pub fn address_add(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut header = vec![AF_INET, prefix, 0, 0];
        header.extend(index.to_ne_bytes());
        self.request(
            Message::new(NEW_ADDRESS, ACK | CREATE | EXCLUSIVE)
                .raw(&header)
                .attribute(IFA_LOCAL, &address.octets())
                .attribute(IFA_ADDRESS, &address.octets()),
        )
    }

    /// Adds a route by way of a gateway.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there.
    pub fn route_add(
        &mut self,
        (destination, prefix): (Ipv4Addr, u8),
        gateway: Ipv4Addr,
        index: u32,
    ) -> io::Result<()> {
        // Family, lengths, tos, table main, protocol static, scope universe, type unicast.
        let mut header = vec![AF_INET, prefix, 0, 0, 254, 4, 0, 1];
        header.extend([0; 4]);
        let message = Message::new(NEW_ROUTE, ACK | CREATE | EXCLUSIVE).raw(&header);
        let message = if prefix == 0 {
            message
        } else {
            message.attribute(RTA_DST, &destination.octets())
        };
        self.request(
            message
                .attribute(RTA_GATEWAY, &gateway.octets())
                .attribute(RTA_OIF, &index.to_ne_bytes()),
        )
    }
}
/// Number of the loopback link in every namespace.
pub const LOOPBACK: u32 = 1;

/// The number of a link of the calling thread's namespace.
///
/// # Errors
/// `NotFound` (ENODEV) when there is none of that name.
pub fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}
