//! Messages between server, helper and shims. Each is one packet of a local socket between
//! processes of the same program, so that both ends always have the same version: a tag
//! byte, then fields of fixed size, then text.

use std::io;
use std::net::Ipv4Addr;

/// Longest message.
pub(crate) const MAX_MESSAGE: usize = 2048;

/// What the server asks the helper for. Carries the descriptor of a v2 cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MakeShim {
    /// First host uid and gid of the shim's range of [`super::slot::RANGE`].
    pub(crate) first_id: u32,
}

/// What the helper answers. `Made` carries the shim's pidfd, its socket, its network and its
/// user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The shim is there.
    Made { pid: u32 },
    /// It is not, and why.
    Failed(String),
}

/// What the server tells a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Set up everything that does not depend on the sandbox: network, mounts, limits.
    Prepare {
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    },
    /// Become the sandbox. Carries root mount, agent, ready pipe, log file, key pipe.
    Launch {
        /// What the agent tells as the sandbox's processors and memory.
        cpus: u32,
        memory_mib: u32,
    },
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn number(bytes: &[u8]) -> io::Result<u32> {
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| invalid())?))
}

impl MakeShim {
    pub(crate) fn encode(self) -> Vec<u8> {
        self.first_id.to_be_bytes().to_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        Ok(Self {
            first_id: number(bytes)?,
        })
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Made { pid } => [&b"M"[..], &pid.to_be_bytes()].concat(),
            Self::Failed(why) => {
                let mut bytes = [&b"F"[..], why.as_bytes()].concat();
                bytes.truncate(MAX_MESSAGE);
                bytes
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        match bytes.split_first() {
            Some((b'M', rest)) => Ok(Self::Made { pid: number(rest)? }),
            Some((b'F', why)) => Ok(Self::Failed(String::from_utf8_lossy(why).into_owned())),
            _ => Err(invalid()),
        }
    }
}

impl Order {
    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Prepare { address, gateway } => {
                [&b"P"[..], &address.octets(), &gateway.octets()].concat()
            }
            Self::Launch { cpus, memory_mib } => {
                [&b"L"[..], &cpus.to_be_bytes(), &memory_mib.to_be_bytes()].concat()
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        match bytes.split_first() {
            Some((b'P', rest)) if rest.len() == 8 => Ok(Self::Prepare {
                address: Ipv4Addr::from_bits(number(&rest[..4])?),
                gateway: Ipv4Addr::from_bits(number(&rest[4..])?),
            }),
            Some((b'L', rest)) if rest.len() == 8 => Ok(Self::Launch {
                cpus: number(&rest[..4])?,
                memory_mib: number(&rest[4..])?,
            }),
            _ => Err(invalid()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_trip() {
        let make = MakeShim { first_id: 165_536 };
        assert_eq!(MakeShim::decode(&make.encode()).unwrap(), make);
        for answer in [Answer::Made { pid: 7 }, Answer::Failed("no".to_owned())] {
            assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        }
        let address = Ipv4Addr::new(100, 64, 0, 3);
        let gateway = Ipv4Addr::new(100, 64, 0, 2);
        let launch = Order::Launch {
            cpus: 2,
            memory_mib: 1024,
        };
        for order in [Order::Prepare { address, gateway }, launch] {
            assert_eq!(Order::decode(&order.encode()).unwrap(), order);
        }
    }

    #[test]
    fn a_malformed_message_is_refused() {
        for bytes in [&b""[..], b"P", b"P1234567", b"X", b"L1"] {
            assert!(Order::decode(bytes).is_err());
            assert!(Answer::decode(&bytes[..bytes.len().min(1)]).is_err() || bytes == b"F");
        }
        assert!(MakeShim::decode(b"123").is_err());
    }
}
