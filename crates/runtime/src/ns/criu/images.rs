//! Changing of CRIU's images: the few facts in them that differ between a source and what is
//! restored from it. An image is a magic number of eight bytes and then protobuf messages,
//! each after its length.

use std::io;

use super::super::slot::RANGE;

const MAGIC: usize = 8;
/// Field of `userns_entry`s that are maps, and in a map the first id outside.
const MAPS: [u64; 2] = [1, 2];
const OUTSIDE: u64 = 2;
/// Field of a mount's entry that holds its options.
const OPTIONS: u64 = 9;

pub(super) fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an image has an unknown form")
}

/// A field of a message: its number and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of fixed length, 4 or 8 bytes.
    Fixed(&'a [u8]),
}

fn split(bytes: &[u8], length: usize) -> io::Result<(&[u8], &[u8])> {
    bytes.split_at_checked(length).ok_or_else(invalid)
}

fn read_number(bytes: &[u8]) -> io::Result<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[at + 1..]));
        }
    }
    Err(invalid())
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn read_field(bytes: &[u8]) -> io::Result<(u64, Value<'_>, &[u8])> {
    let (tag, rest) = read_number(bytes)?;
    let (value, rest) = match tag & 7 {
        0 => {
            let (number, rest) = read_number(rest)?;
            (Value::Number(number), rest)
        }
        1 => {
            let (fixed, rest) = split(rest, 8)?;
            (Value::Fixed(fixed), rest)
        }
        2 => {
            let (length, rest) = read_number(rest)?;
            let (bytes, rest) = split(rest, usize::try_from(length).map_err(|_| invalid())?)?;
            (Value::Bytes(bytes), rest)
        }
        5 => {
            let (fixed, rest) = split(rest, 4)?;
            (Value::Fixed(fixed), rest)
        }
        _ => return Err(invalid()),
    };
    Ok((tag >> 3, value, rest))
}

pub(super) fn write_field(out: &mut Vec<u8>, number: u64, value: &Value<'_>) {
    match value {
        Value::Number(value) => {
            write_number(out, number << 3);
            write_number(out, *value);
        }
        Value::Bytes(bytes) => {
            write_number(out, number << 3 | 2);
            write_number(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::Fixed(bytes) => {
            write_number(out, number << 3 | if bytes.len() == 8 { 1 } else { 5 });
            out.extend_from_slice(bytes);
        }
    }
}

/// Copies a message, each field as `change` writes it.
pub(super) fn edit_message(
    mut bytes: &[u8],
    mut change: impl FnMut(&mut Vec<u8>, u64, Value<'_>) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    while !bytes.is_empty() {
        let (number, value, rest) = read_field(bytes)?;
        change(&mut out, number, value)?;
        bytes = rest;
    }
    Ok(out)
}

/// Copies an image, each message as `change` gives it.
pub(super) fn edit_image(
    image: &[u8],
    mut change: impl FnMut(&[u8]) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let (magic, mut rest) = split(image, MAGIC)?;
    let mut out = magic.to_vec();
    while !rest.is_empty() {
        let (length, tail) = split(rest, 4)?;
        let length = u32::from_le_bytes(length.try_into().map_err(|_| invalid())?);
        let (message, tail) = split(tail, length as usize)?;
        let changed = change(message)?;
        let length = u32::try_from(changed.len()).map_err(|_| invalid())?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&changed);
        rest = tail;
    }
    Ok(out)
}

/// Rewrites the id maps of a user namespace to begin at `first_id` outside.
pub(super) fn remap_ids(image: &[u8], first_id: u32) -> io::Result<Vec<u8>> {
    edit_image(image, |message| {
        edit_message(message, |out, number, value| {
            let Value::Bytes(map) = value else {
                return Err(invalid());
            };
            if !MAPS.contains(&number) {
                return Err(invalid());
            }
            let map = edit_message(map, |out, number, value| {
                let value = if number == OUTSIDE {
                    Value::Number(first_id.into())
                } else {
                    value
                };
                write_field(out, number, &value);
                Ok(())
            })?;
            write_field(out, number, &Value::Bytes(&map));
            Ok(())
        })
    })
}

/// Rewrites host ids in the options of mounts from one range to another.
pub(super) fn remap_mounts(image: &[u8], from: u32, to: u32) -> io::Result<Vec<u8>> {
    edit_image(image, |message| {
        edit_message(message, |out, number, value| {
            match value {
                Value::Bytes(bytes) if number == OPTIONS => {
                    let text = std::str::from_utf8(bytes).map_err(|_| invalid())?;
                    let text = remap_options(text, from, to);
                    write_field(out, number, &Value::Bytes(text.as_bytes()));
                }
                value => write_field(out, number, &value),
            }
            Ok(())
        })
    })
}

fn remap_options(options: &str, from: u32, to: u32) -> String {
    let moved = |option: &str| {
        let (name, value) = option.split_once('=')?;
        let id: u32 = value.parse().ok()?;
        let inside = id.checked_sub(from).filter(|inside| *inside < RANGE)?;
        matches!(name, "uid" | "gid").then(|| format!("{name}={}", to + inside))
    };
    let options: Vec<_> = options
        .split(',')
        .map(|option| moved(option).unwrap_or_else(|| option.to_owned()))
        .collect();
    options.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One image message with the given content.
    fn image(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&b"MAGIC..."[..], &length.to_le_bytes(), message].concat()
    }

    fn map(first: u64) -> Vec<u8> {
        let mut map = Vec::new();
        for (number, value) in [(1, 0), (2, first), (3, u64::from(RANGE))] {
            write_field(&mut map, number, &Value::Number(value));
        }
        let mut message = Vec::new();
        write_field(&mut message, 1, &Value::Bytes(&map));
        write_field(&mut message, 2, &Value::Bytes(&map));
        message
    }

    #[test]
    fn an_id_map_moves_and_nothing_else_changes() {
        let before = image(&map(201_492_128));
        assert_eq!(remap_ids(&before, 165_536).unwrap(), image(&map(165_536)));
        assert_eq!(remap_ids(&before, 201_492_128).unwrap(), before);
    }

    #[test]
    fn ids_in_mount_options_move_and_others_stay() {
        let text = "gid=201492133,mode=620,uid=7,size=201492133";
        let wanted = "gid=165541,mode=620,uid=7,size=201492133";
        assert_eq!(remap_options(text, 201_492_128, 165_536), wanted);
        let entry = |text: &str| {
            let mut message = Vec::new();
            write_field(&mut message, 1, &Value::Number(300));
            write_field(&mut message, OPTIONS, &Value::Bytes(text.as_bytes()));
            write_field(&mut message, 12, &Value::Fixed(&[1, 2, 3, 4]));
            image(&message)
        };
        let changed = remap_mounts(&entry(text), 201_492_128, 165_536).unwrap();
        assert_eq!(changed, entry(wanted));
    }

    #[test]
    fn a_malformed_image_is_refused() {
        let good = image(&map(5));
        for end in 0..good.len() {
            if end != MAGIC {
                assert!(remap_ids(&good[..end], 5).is_err(), "{end}");
            }
        }
        assert!(remap_ids(&image(&[0xff; 12]), 5).is_err());
    }
}
