//! Directories of the host that are mounted in a sandbox, volumes that is. They are no part
//! of a capture: it keeps the places, and at a restore they are mounted there again before
//! anything runs. So no process may have anything of them in use when it is captured.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, makedev, minor};

use super::images::{Value, edit_image, invalid, read_field};

/// Kinds of file systems that a sandbox has of its own.
const OWN: [&str; 6] = ["overlay", "tmpfs", "devpts", "mqueue", "proc", "sysfs"];
/// Field of a mount's entry that tells where it is.
const MOUNTPOINT: u64 = 7;

/// Why a sandbox with volumes can't be captured with its memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum InUse {
    #[error("a process uses {file} on the volume {volume}")]
    Open { file: String, volume: String },
    #[error("a process watches files on the volume {0}")]
    Watched(String),
    #[error("a process listens on a local socket on the volume {0}")]
    Socket(String),
    #[error("the volume {0:?} has a place that can't be named")]
    Place(String),
    #[error("look for what is in use")]
    Look(#[from] io::Error),
}

/// Places of the volumes of a sandbox, by device.
pub(super) fn find(process: &Path) -> Result<BTreeMap<u64, String>, InUse> {
    let table = fs::read_to_string(process.join("mountinfo"))?;
    let mut found = BTreeMap::new();
    for line in table.lines() {
        if let Some((device, place)) = volume(line) {
            if place.contains(['[', ']', ':', '\\', '\n']) {
                return Err(InUse::Place(place));
            }
            found.insert(device, place);
        }
    }
    Ok(found)
}

/// Device and place of a line of the mount table that tells of a volume.
fn volume(line: &str) -> Option<(u64, String)> {
    let (left, right) = line.split_once(" - ")?;
    if OWN.contains(&right.split(' ').next()?) {
        return None;
    }
    let mut words = left.split(' ').skip(2);
    let (high, low) = words.next()?.split_once(':')?;
    let device = makedev(high.parse().ok()?, low.parse().ok()?);
    // Other escaped characters stay as they are, and are refused.
    let place = words.nth(1)?.replace("\\040", " ");
    Some((device, place))
}

/// Refuses if a process has something of a volume in use.
pub(super) fn check(pids: &[u32], volumes: &BTreeMap<u64, String>) -> Result<(), InUse> {
    if volumes.is_empty() {
        return Ok(());
    }
    for pid in pids {
        let process = Path::new("/proc").join(pid.to_string());
        let mut links = vec![
            process.join("cwd"),
            process.join("root"),
            process.join("exe"),
        ];
        for entry in fs::read_dir(process.join("fd"))? {
            links.push(entry?.path());
        }
        for link in links {
            check_link(&link, volumes)?;
        }
        check_mappings(&fs::read_to_string(process.join("maps"))?, volumes)?;
        for entry in fs::read_dir(process.join("fdinfo"))? {
            check_watches(&fs::read_to_string(entry?.path())?, volumes)?;
        }
    }
    if let Some(pid) = pids.first() {
        let sockets = Path::new("/proc").join(pid.to_string()).join("net/unix");
        check_sockets(&fs::read_to_string(sockets)?, volumes)?;
    }
    Ok(())
}

fn check_link(link: &PathBuf, volumes: &BTreeMap<u64, String>) -> Result<(), InUse> {
    let facts = match fs::metadata(link) {
        // Of a process that is no more, and descriptors that were closed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match volumes.get(&facts.dev()) {
        Some(volume) => Err(InUse::Open {
            file: fs::read_link(link)?.to_string_lossy().into_owned(),
            volume: volume.clone(),
        }),
        None => Ok(()),
    }
}

fn check_mappings(maps: &str, volumes: &BTreeMap<u64, String>) -> Result<(), InUse> {
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let device = words.nth(3).and_then(|word| word.split_once(':'));
        let device = device.and_then(|(high, low)| {
            let number = |text| u32::from_str_radix(text, 16).ok();
            Some(makedev(number(high)?, number(low)?))
        });
        if let Some(volume) = device.and_then(|device| volumes.get(&device)) {
            return Err(InUse::Open {
                file: words.nth(1).unwrap_or("a file").to_owned(),
                volume: volume.clone(),
            });
        }
    }
    Ok(())
}

fn check_watches(facts: &str, volumes: &BTreeMap<u64, String>) -> Result<(), InUse> {
    for line in facts.lines().filter(|line| line.starts_with("inotify ")) {
        let device = line
            .split(' ')
            .find_map(|word| word.strip_prefix("sdev:"))
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        // As the kernel has it: the minor number in the lower 20 bits.
        let is_there = |volume: &u64| {
            let own = u64::from(major(*volume)) << 20 | u64::from(minor(*volume));
            device == Some(own)
        };
        if let Some((_, volume)) = volumes.iter().find(|(volume, _)| is_there(volume)) {
            return Err(InUse::Watched(volume.clone()));
        }
    }
    Ok(())
}

fn check_sockets(table: &str, volumes: &BTreeMap<u64, String>) -> Result<(), InUse> {
    for line in table.lines() {
        let Some(at) = line.find(" /") else {
            continue;
        };
        let path = Path::new(&line[at + 1..]);
        if let Some(volume) = volumes.values().find(|volume| path.starts_with(volume)) {
            return Err(InUse::Socket(volume.clone()));
        }
    }
    Ok(())
}

/// Takes the volumes out of the image of mounts.
pub(super) fn leave_out(image: &[u8], places: &[String]) -> io::Result<Vec<u8>> {
    let mut kept = image.get(..8).ok_or_else(invalid)?.to_vec();
    edit_image(image, |message| {
        if !is_at(message, places)? {
            let length = u32::try_from(message.len()).map_err(|_| invalid())?;
            kept.extend_from_slice(&length.to_le_bytes());
            kept.extend_from_slice(message);
        }
        Ok(Vec::new())
    })?;
    Ok(kept)
}

fn is_at(mut message: &[u8], places: &[String]) -> io::Result<bool> {
    while !message.is_empty() {
        let (number, value, rest) = read_field(message)?;
        if let (MOUNTPOINT, Value::Bytes(place)) = (number, value) {
            return Ok(places.iter().any(|volume| volume.as_bytes() == place));
        }
        message = rest;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::images::write_field;
    use super::*;

    const LINE: &str = "99 80 7:12 / /mnt/my\\040data rw,nodev - ext4 /dev/loop12 rw";

    fn volumes() -> BTreeMap<u64, String> {
        BTreeMap::from([volume(LINE).unwrap()])
    }

    #[test]
    fn volumes_are_the_mounts_that_are_not_the_sandboxs_own() {
        assert_eq!(
            volume(LINE).unwrap(),
            (makedev(7, 12), "/mnt/my data".to_owned())
        );
        let own = "1 0 0:5 / / rw master:1 - overlay overlay rw,lowerdir=/x";
        assert_eq!(volume(own), None);
        assert_eq!(volume("rubbish"), None);
    }

    #[test]
    fn mappings_watches_and_sockets_on_a_volume_are_found() {
        let volumes = volumes();
        let mapped = "7f0-7f1 r--p 00000000 07:0c 33 /mnt/my data/lib.so\n";
        assert!(check_mappings(mapped, &volumes).is_err());
        assert!(check_mappings("7f0-7f1 r--p 0 00:1c 33 /lib/x\n", &volumes).is_ok());
        let watch = |device: &str| format!("pos:\t0\ninotify wd:1 ino:5 sdev:{device} mask:2\n");
        assert!(check_watches(&watch("70000c"), &volumes).is_err());
        assert!(check_watches(&watch("70000d"), &volumes).is_ok());
        let table = "Num Path\n0: 2 0 10000 1 01 5 /mnt/my data/sock\n";
        assert!(check_sockets(table, &volumes).is_err());
        assert!(check_sockets("0: 2 0 10000 1 01 5 /mnt/my database\n", &volumes).is_ok());
    }

    #[test]
    fn only_volumes_leave_the_image_of_mounts() {
        let entry = |place: &str| {
            let mut message = Vec::new();
            write_field(&mut message, 2, &Value::Number(7));
            write_field(&mut message, MOUNTPOINT, &Value::Bytes(place.as_bytes()));
            let length = u32::try_from(message.len()).unwrap();
            [&length.to_le_bytes()[..], &message].concat()
        };
        let image = |places: &[&str]| {
            let entries = places.iter().flat_map(|place| entry(place));
            b"MAGIC..."
                .iter()
                .copied()
                .chain(entries)
                .collect::<Vec<_>>()
        };
        let places = ["/mnt/v".to_owned(), "/data".to_owned()];
        let before = image(&["/", "/mnt/v", "/proc", "/data", "/dev"]);
        assert_eq!(
            leave_out(&before, &places).unwrap(),
            image(&["/", "/proc", "/dev"])
        );
        assert!(leave_out(&before[..20], &places).is_err());
    }
}
