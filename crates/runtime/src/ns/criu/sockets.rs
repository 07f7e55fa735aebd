//! Internet sockets in CRIU's images. A connection whose two ends were both captured is
//! restored; of any other the far end is not there, so the socket is restored closed. The
//! sandbox's own address is another in each restore.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::images::{Value, edit_image, edit_message, invalid, read_field, write_field};

/// Field of a file's entry that describes an internet socket.
const SOCKET: u64 = 4;
/// Fields of that description.
const PROTOCOL: u64 = 5;
const STATE: u64 = 6;
const PORTS: [u64; 2] = [7, 8];
const ADDRESSES: [u64; 2] = [11, 12];
const TCP: u64 = 6;
const CLOSED: u64 = 7;
const LISTENING: u64 = 10;

type End = (IpAddr, u64);

/// What matters here of a socket.
#[derive(Debug, Default)]
struct Socket {
    protocol: u64,
    state: u64,
    ports: [u64; 2],
    /// Words of the addresses, in network order.
    words: [Vec<u32>; 2],
}

impl Socket {
    fn read(mut bytes: &[u8]) -> io::Result<Self> {
        let mut socket = Self::default();
        while !bytes.is_empty() {
            let (number, value, rest) = read_field(bytes)?;
            bytes = rest;
            let Value::Number(value) = value else {
                continue;
            };
            match number {
                PROTOCOL => socket.protocol = value,
                STATE => socket.state = value,
                number => {
                    if let Some(side) = PORTS.iter().position(|port| *port == number) {
                        socket.ports[side] = value;
                    }
                    if let Some(side) = ADDRESSES.iter().position(|words| *words == number) {
                        socket.words[side].push(u32::try_from(value).map_err(|_| invalid())?);
                    }
                }
            }
        }
        Ok(socket)
    }

    fn is_connection(&self) -> bool {
        self.protocol == TCP && ![CLOSED, LISTENING].contains(&self.state)
    }

    fn ends(&self) -> io::Result<[End; 2]> {
        let [own, other] = &self.words;
        Ok([
            (address(own)?, self.ports[0]),
            (address(other)?, self.ports[1]),
        ])
    }
}

fn address(words: &[u32]) -> io::Result<IpAddr> {
    match *words {
        [word] => Ok(Ipv4Addr::from(word.to_ne_bytes()).into()),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (place, word) in bytes.chunks_mut(4).zip([a, b, c, d]) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            Ok(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => Err(invalid()),
    }
}

/// Calls `see` with the description of each internet socket in an image.
fn each(image: &[u8], mut see: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    edit_image(image, |message| {
        let mut rest = message;
        while !rest.is_empty() {
            let (number, value, tail) = read_field(rest)?;
            if let (SOCKET, Value::Bytes(bytes)) = (number, value) {
                see(bytes)?;
            }
            rest = tail;
        }
        Ok(message.to_vec())
    })
    .map(drop)
}

/// Copies an image, each internet socket as `change` gives it.
fn edit(image: &[u8], mut change: impl FnMut(&[u8]) -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    edit_image(image, |message| {
        edit_message(message, |out, number, value| {
            match value {
                Value::Bytes(bytes) if number == SOCKET => {
                    write_field(out, number, &Value::Bytes(&change(bytes)?));
                }
                value => write_field(out, number, &value),
            }
            Ok(())
        })
    })
}

/// Closes the connections that lead out of the image of open files. Gives the image and how
/// many there were.
pub(super) fn close_outward(image: &[u8]) -> io::Result<(Vec<u8>, usize)> {
    let mut known = BTreeSet::new();
    each(image, |bytes| {
        let socket = Socket::read(bytes)?;
        if socket.is_connection() {
            known.insert(socket.ends()?);
        }
        Ok(())
    })?;
    let mut closed = 0;
    let image = edit(image, |bytes| {
        let socket = Socket::read(bytes)?;
        if !socket.is_connection() {
            return Ok(bytes.to_vec());
        }
        let [own, other] = socket.ends()?;
        if known.contains(&[other, own]) {
            return Ok(bytes.to_vec());
        }
        closed += 1;
        edit_message(bytes, |out, number, value| {
            let value = match number {
                STATE => Value::Number(CLOSED),
                number if PORTS.contains(&number) || ADDRESSES.contains(&number) => {
                    Value::Number(0)
                }
                _ => value,
            };
            write_field(out, number, &value);
            Ok(())
        })
    })?;
    Ok((image, closed))
}

/// Replaces the sandbox's own address in the image of open files.
pub(super) fn move_address(image: &[u8], from: Ipv4Addr, to: Ipv4Addr) -> io::Result<Vec<u8>> {
    let word = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets()));
    edit(image, |bytes| {
        edit_message(bytes, |out, number, value| {
            // The last word of an address that is mapped into version 6 is the same.
            let value = match value {
                Value::Number(old) if ADDRESSES.contains(&number) && old == word(from) => {
                    Value::Number(word(to))
                }
                value => value,
            };
            write_field(out, number, &value);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTABLISHED: u64 = 1;

    fn words(address: &str) -> Vec<u64> {
        let bytes = match address.parse().unwrap() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let words = bytes.chunks(4);
        words
            .map(|word| u64::from(u32::from_ne_bytes(word.try_into().unwrap())))
            .collect()
    }

    /// A message of the image of open files.
    fn entry(state: u64, own: (&str, u64), other: (&str, u64)) -> Vec<u8> {
        let mut socket = Vec::new();
        for (number, value) in [(1, 9), (PROTOCOL, TCP), (STATE, state)] {
            write_field(&mut socket, number, &Value::Number(value));
        }
        write_field(&mut socket, PORTS[0], &Value::Number(own.1));
        write_field(&mut socket, PORTS[1], &Value::Number(other.1));
        for (side, address) in [own.0, other.0].into_iter().enumerate() {
            for word in words(address) {
                write_field(&mut socket, ADDRESSES[side], &Value::Number(word));
            }
        }
        write_field(&mut socket, 13, &Value::Bytes(&[8, 0]));
        let mut message = Vec::new();
        write_field(&mut message, 1, &Value::Number(2));
        write_field(&mut message, SOCKET, &Value::Bytes(&socket));
        message
    }

    fn image(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut image = b"MAGIC...".to_vec();
        for message in messages {
            let length = u32::try_from(message.len()).unwrap();
            image.extend(length.to_le_bytes());
            image.extend(message);
        }
        image
    }

    #[test]
    fn only_connections_with_both_ends_inside_stay() {
        let (any, peer) = (("0.0.0.0", 0), ("9.9.9.9", 443));
        let kept = [
            entry(LISTENING, ("0.0.0.0", 80), any),
            entry(ESTABLISHED, ("127.0.0.1", 80), ("127.0.0.1", 5000)),
            entry(
                ESTABLISHED,
                ("::ffff:127.0.0.1", 5000),
                ("::ffff:127.0.0.1", 80),
            ),
            entry(CLOSED, ("0.0.0.0", 0), any),
        ];
        let (unchanged, closed) = close_outward(&image(&kept)).unwrap();
        assert_eq!((unchanged, closed), (image(&kept), 0));
        let outward = [
            entry(ESTABLISHED, ("100.64.0.9", 5001), peer),
            entry(8, ("127.0.0.1", 49983), ("127.0.0.1", 5002)),
        ];
        let (changed, closed) = close_outward(&image(&outward)).unwrap();
        let expected = entry(CLOSED, ("0.0.0.0", 0), any);
        assert_eq!(changed, image(&[expected.clone(), expected]));
        assert_eq!(closed, 2);
    }

    #[test]
    fn the_own_address_moves_and_no_other() {
        let (from, to) = (Ipv4Addr::new(100, 64, 0, 9), Ipv4Addr::new(100, 64, 1, 3));
        let at = |own: &str, mapped: &str| {
            image(&[
                entry(LISTENING, (own, 80), ("0.0.0.0", 0)),
                entry(ESTABLISHED, (mapped, 80), ("::ffff:9.9.9.9", 5)),
                entry(LISTENING, ("127.0.0.1", 81), ("0.0.0.0", 0)),
            ])
        };
        let before = at("100.64.0.9", "::ffff:100.64.0.9");
        let after = at("100.64.1.3", "::ffff:100.64.1.3");
        assert_eq!(move_address(&before, from, to).unwrap(), after);
    }

    #[test]
    fn a_torn_image_is_refused() {
        let whole = image(&[entry(ESTABLISHED, ("127.0.0.1", 1), ("127.0.0.1", 2))]);
        for end in 0..whole.len() {
            if end != 8 {
                assert!(close_outward(&whole[..end]).is_err(), "{end}");
            }
        }
    }
}
