//! What the router's rules tell of packets that they refuse.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use warren_sys::netlink::nflog::{Listener, Logged};

use super::super::slot::Slot;
use super::rules::Why;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// A packet that the router refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Slot of the sandbox that sent it.
    pub slot: u32,
    /// `tcp`, `udp`, `icmp` or `ip`.
    pub protocol: &'static str,
    /// Where it was to go; port 0 where there are none.
    pub to: SocketAddrV4,
    /// The rule.
    pub why: Why,
}

/// Tells of refused packets, as many as the router's rules let through for each sandbox.
#[derive(Debug)]
pub struct RefusedLog(AsyncFd<Listener>);

impl RefusedLog {
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "the descriptor is owned, and keeps its number as long as it lives"
        )]
        let fd = AsyncFd::with_interest(listener, Interest::READABLE)?;
        Ok(Self(fd))
    }

    /// The next ones; possibly none.
    ///
    /// # Errors
    /// As recv(2) on the socket.
    pub async fn next(&mut self) -> io::Result<Vec<Refused>> {
        loop {
            let mut ready = self.0.readable().await?;
            // Nothing was there after all if it would block.
            if let Ok(packets) = ready.try_io(|listener| listener.get_ref().receive()) {
                return Ok(packets?.iter().filter_map(read).collect());
            }
        }
    }
}

fn read(logged: &Logged) -> Option<Refused> {
    let why = Why::of_prefix(&logged.prefix)?;
    let packet = &logged.packet;
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv4Addr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(octets.into())
    };
    let header = usize::from(first & 0xf) * 4;
    let port = packet.get(header + 2..header + 4);
    let port = port.and_then(|bytes| Some(u16::from_be_bytes(bytes.try_into().ok()?)));
    let (protocol, port) = match *packet.get(9)? {
        PROTOCOL_TCP => ("tcp", port.unwrap_or(0)),
        PROTOCOL_UDP => ("udp", port.unwrap_or(0)),
        PROTOCOL_ICMP => ("icmp", 0),
        _ => ("ip", 0),
    };
    Some(Refused {
        slot: Slot::of_address(address(12)?)?.number(),
        protocol,
        to: SocketAddrV4::new(address(16)?, port),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_cut_packets_are_passed_over() {
        let mut packet = vec![0x45; 24];
        packet[9] = PROTOCOL_UDP;
        packet[12..16].copy_from_slice(&[100, 64, 0, 15]);
        packet[16..20].copy_from_slice(&[9, 9, 9, 9]);
        packet[22..24].copy_from_slice(&443u16.to_be_bytes());
        let logged = |packet: &[u8], prefix: &str| Logged {
            prefix: prefix.to_owned(),
            packet: packet.to_vec(),
        };
        let expected = Refused {
            slot: 7,
            protocol: "udp",
            to: "9.9.9.9:443".parse().unwrap(),
            why: Why::Quic,
        };
        assert_eq!(read(&logged(&packet, "q")), Some(expected));
        assert_eq!(read(&logged(&packet, "?")), None);
        for cut in 0..20 {
            assert_eq!(read(&logged(&packet[..cut], "q")), None);
        }
        packet[12] = 1;
        assert_eq!(read(&logged(&packet, "q")), None);
    }
}
