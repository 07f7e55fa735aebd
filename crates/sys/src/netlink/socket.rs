//! A netlink socket that waits for the answer to each request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
    socket_with,
};

use super::message::Message;

const TYPE_ERROR: u16 = 2;

/// A netlink socket; belongs to the network namespace its maker was in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket for links, addresses and routes.
    ///
    /// # Errors
    /// As socket(2).
    pub fn route() -> io::Result<Self> {
        // The route protocol is number 0, which is what no choice means.
        Self::open(None)
    }

    /// Opens a socket for the firewall.
    ///
    /// # Errors
    /// As socket(2).
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a packet in which exactly one message asks for an acknowledgement, and waits
    /// for it.
    ///
    /// # Errors
    /// The error that the kernel answers with.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let packet = message.finish(self.sequence);
        send(&self.fd, &packet, SendFlags::empty())?;
        let mut buffer = vec![0u8; 8192];
        loop {
            let (length, _) = match recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if let Some(answer) = answer_to(self.sequence, &buffer[..length]) {
                return match answer {
                    0 => Ok(()),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The error code in a packet, if it answers the request of this number.
fn answer_to(sequence: u32, mut packet: &[u8]) -> Option<i32> {
    while packet.len() >= 16 {
        let length = u32::from_ne_bytes(packet[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(packet[4..6].try_into().ok()?);
        let number = u32::from_ne_bytes(packet[8..12].try_into().ok()?);
        if kind == TYPE_ERROR && number == sequence && packet.len() >= 20 {
            return Some(i32::from_ne_bytes(packet[16..20].try_into().ok()?));
        }
        let next = length.next_multiple_of(4);
        if length < 16 || next > packet.len() {
            break;
        }
        packet = &packet[next..];
    }
    None
}
