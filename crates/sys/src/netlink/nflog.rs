//! Packets that rules of the firewall tell of (`log group N`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{RecvFlags, recv};

use super::Socket;
use super::message::{ACK, Message};

const SUBSYSTEM: u16 = 4;
const PACKET: u16 = SUBSYSTEM << 8;
const CONFIG: u16 = (SUBSYSTEM << 8) | 1;

const CONFIG_COMMAND: u16 = 1;
const CONFIG_MODE: u16 = 2;
const CONFIG_THRESHOLD: u16 = 5;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

/// Flags of an attribute's kind.
const KIND_MASK: u16 = 0x3fff;
/// As much of a packet as holds the headers.
const SNAP: u32 = 128;
const BUFFER: usize = 64 * 1024;

/// A packet that a rule told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The rule's prefix.
    pub prefix: String,
    /// The packet from its IP header on, at most 128 bytes.
    pub packet: Vec<u8>,
}

/// Receives what the rules of one group tell of. Never blocks.
#[derive(Debug)]
pub struct Listener(Socket);

impl Listener {
    /// Opens a listener in the network namespace of the calling thread.
    ///
    /// # Errors
    /// As the kernel answers: `InvalidInput` or unsupported when it can't log to programs.
    pub fn open(group: u16) -> io::Result<Self> {
        let mut socket = Socket::netfilter()?;
        let [high, low] = group.to_be_bytes();
        let configure = || Message::new(CONFIG, ACK).raw(&[0, 0, high, low]);
        socket.request(configure().attribute(CONFIG_COMMAND, &[BIND]))?;
        let [a, b, c, d] = SNAP.to_be_bytes();
        socket.request(configure().attribute(CONFIG_MODE, &[a, b, c, d, COPY_PACKET, 0]))?;
        // Each packet at once; else they are held back for a second.
        socket.request(configure().attribute(CONFIG_THRESHOLD, &1u32.to_be_bytes()))?;
        rustix::io::ioctl_fionbio(socket.as_fd(), true)?;
        Ok(Self(socket))
    }

    /// The packets that wait. Empty when more were told of than the kernel kept.
    ///
    /// # Errors
    /// `WouldBlock` when none does.
    pub fn receive(&self) -> io::Result<Vec<Logged>> {
        let mut buffer = vec![0u8; BUFFER];
        match recv(self.0.as_fd(), &mut buffer[..], RecvFlags::empty()) {
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok((length, _)) => Ok(parse(&buffer[..length])),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Listener {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.as_fd().as_raw_fd()
    }
}

fn parse(mut datagram: &[u8]) -> Vec<Logged> {
    let mut found = Vec::new();
    while let Some((kind, body, rest)) = next_message(datagram) {
        // The body begins with a header of four bytes of its own.
        if kind == PACKET
            && let Some(attributes) = body.get(4..)
        {
            found.push(logged(attributes));
        }
        datagram = rest;
    }
    found
}

fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, rest))
}

fn logged(mut attributes: &[u8]) -> Logged {
    let mut logged = Logged {
        prefix: String::new(),
        packet: Vec::new(),
    };
    while let Some((kind, value, rest)) = next_attribute(attributes) {
        match kind & KIND_MASK {
            PREFIX => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                logged.prefix = String::from_utf8_lossy(text).into_owned();
            }
            PAYLOAD => value.clone_into(&mut logged.packet),
            _ => {}
        }
        attributes = rest;
    }
    logged
}

fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let value = bytes.get(4..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_and_rubbish_ends_the_datagram() {
        let datagram = Message::new(PACKET, 0)
            .raw(&[2, 0, 0, 7])
            .text(PREFIX, "d")
            .attribute(PAYLOAD, &[0x45, 1, 2])
            .and(CONFIG, 0)
            .raw(&[0, 0, 0, 7])
            .finish(0);
        let expected = Logged {
            prefix: "d".to_owned(),
            packet: vec![0x45, 1, 2],
        };
        assert_eq!(parse(&datagram), [expected]);
        for cut in 0..datagram.len() {
            assert!(parse(&datagram[..cut]).len() <= 1);
        }
        assert!(parse(&[0xff; 40]).is_empty());
    }
}
