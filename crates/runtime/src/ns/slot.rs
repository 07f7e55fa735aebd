//! Slots: what keeps sandboxes on one host apart. A slot's number determines the range of
//! user ids and the address. Numbers are handed out in blocks, each owned by one instance
//! through a file that all instances on the host see.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// User and group ids of a sandbox.
pub(crate) const RANGE: u32 = 65_536;
const FIRST_ID: u32 = 100_000;
/// Slots in a block.
const BLOCK: u32 = 256;
/// Blocks whose ids fit 32 bits.
const BLOCKS: u32 = 254;
/// Sandbox addresses lie in the shared address space, which no public host has.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// Number of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slot(u32);

impl Slot {
    /// The slot of a number from a record.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        (number < BLOCK * BLOCKS).then_some(Self(number))
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// First host uid and gid of the range. Block 0 begins one range above [`FIRST_ID`].
    pub(crate) fn first_id(self) -> u32 {
        FIRST_ID + RANGE * (self.0 + 1)
    }

    /// The slot whose range begins there.
    pub(crate) fn of_first_id(id: u32) -> Option<Self> {
        let offset = id.checked_sub(FIRST_ID)?;
        if offset % RANGE == 0 {
            Self::from_number((offset / RANGE).checked_sub(1)?)
        } else {
            None
        }
    }

    /// Address of the router's end of the link.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + 2 * self.0)
    }

    /// Address of the sandbox.
    pub(crate) fn address(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway().to_bits() + 1)
    }

    /// The slot that an address of the sandbox's end belongs to.
    pub(crate) fn of_address(address: Ipv4Addr) -> Option<Self> {
        let offset = address.to_bits().checked_sub(FIRST_ADDRESS.to_bits())?;
        if offset % 2 == 1 {
            Self::from_number(offset / 2)
        } else {
            None
        }
    }

    /// Name of the router's end of the link.
    pub(crate) fn link(self) -> String {
        format!("s{}", self.0)
    }

    /// Name of the slot's cgroups.
    pub(crate) fn cgroup(self) -> String {
        format!("s{}", self.0)
    }

    /// The slot whose cgroup has this name.
    pub(crate) fn of_cgroup(name: &str) -> Option<Self> {
        Self::from_number(name.strip_prefix('s')?.parse().ok()?)
    }
}

/// Hands out slots of one instance.
#[derive(Debug)]
pub(crate) struct Slots {
    dir: PathBuf,
    owner: String,
    blocks: Vec<(u32, File)>,
    /// Reused in order of release, so that a number rests as long as possible.
    free: VecDeque<Slot>,
    used: BTreeSet<Slot>,
}

impl Slots {
    /// Takes back the blocks that `owner` has in `dir` from an earlier process.
    pub(crate) fn open(dir: &Path, owner: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut slots = Self {
            dir: dir.to_owned(),
            owner: owner.to_owned(),
            blocks: Vec::new(),
            free: VecDeque::new(),
            used: BTreeSet::new(),
        };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if fs::read_to_string(entry.path())? == owner
                && let Some(block) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
            {
                slots.claim(block, |_| false)?;
            }
        }
        Ok(slots)
    }

    /// Claims a block if it is nobody's, ours already, or its owner's and `is_dead` says
    /// that nothing of that owner is left.
    fn claim(&mut self, block: u32, is_dead: impl Fn(&str) -> bool) -> io::Result<bool> {
        let path = self.dir.join(block.to_string());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            other => other?,
        }
        let mut owner = String::new();
        file.read_to_string(&mut owner)?;
        if !owner.is_empty() && owner != self.owner && !is_dead(&owner) {
            return Ok(false);
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(self.owner.as_bytes())?;
        // Another instance may have removed the file between our open and our lock.
        if !path.exists() {
            return Ok(false);
        }
        self.blocks.push((block, file));
        let first = block * BLOCK;
        self.free.extend((first..first + BLOCK).map(Slot));
        Ok(true)
    }

    /// Takes a free slot; `is_dead` tells whether an instance has nothing left on the host.
    pub(crate) fn take(&mut self, is_dead: impl Fn(&str) -> bool) -> io::Result<Option<Slot>> {
        if self.free.is_empty() {
            for block in 0..BLOCKS {
                if !self.blocks.iter().any(|(own, _)| *own == block)
                    && self.claim(block, &is_dead)?
                {
                    break;
                }
            }
        }
        let slot = self.free.pop_front();
        self.used.extend(slot);
        Ok(slot)
    }

    /// Marks a slot that a running sandbox has as used. False when it is not ours.
    pub(crate) fn take_back(&mut self, slot: Slot) -> bool {
        let before = self.free.len();
        self.free.retain(|free| *free != slot);
        before != self.free.len() && self.used.insert(slot)
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, slot: Slot) {
        if self.used.remove(&slot) {
            self.free.push_back(slot);
        }
    }

    pub(crate) fn is_used(&self, slot: Slot) -> bool {
        self.used.contains(&slot)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.len()
    }

    pub(crate) fn capacity() -> u32 {
        BLOCK * BLOCKS
    }

    /// Gives all blocks back, if no slot is used.
    pub(crate) fn give_back(&mut self) -> io::Result<()> {
        if !self.used.is_empty() {
            return Ok(());
        }
        self.free.clear();
        for (block, file) in self.blocks.drain(..) {
            fs::remove_file(self.dir.join(block.to_string()))?;
            drop(file);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_addresses_of_the_last_slot_do_not_overflow() {
        let last = Slot::from_number(BLOCK * BLOCKS - 1).unwrap();
        assert!(last.first_id().checked_add(RANGE).is_some());
        assert_eq!(Slot::of_address(last.address()), Some(last));
        assert_eq!(Slot::of_address(last.gateway()), None);
        assert_eq!(Slot::from_number(BLOCK * BLOCKS), None);
        assert_eq!(Slot::of_cgroup(&last.cgroup()), Some(last));
    }

    #[test]
    fn instances_never_share_a_block() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = Slots::open(dir.path(), "one").unwrap();
        let mut two = Slots::open(dir.path(), "two").unwrap();
        let a = one.take(|_| false).unwrap().unwrap();
        let b = two.take(|_| false).unwrap().unwrap();
        assert_ne!(a.number() / BLOCK, b.number() / BLOCK);
    }

    #[test]
    fn a_block_of_a_crashed_instance_waits_until_nothing_of_it_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slots::open(dir.path(), "gone")
            .unwrap()
            .take(|_| false)
            .unwrap()
            .unwrap();
        let mut other = Slots::open(dir.path(), "other").unwrap();
        assert_ne!(other.take(|_| false).unwrap().unwrap().number() / BLOCK, 0);
        let mut third = Slots::open(dir.path(), "third").unwrap();
        assert_eq!(third.take(|owner| owner == "gone").unwrap(), Some(slot));
    }

    #[test]
    fn a_slot_taken_back_is_not_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let slot = Slots::open(dir.path(), "one")
            .unwrap()
            .take(|_| false)
            .unwrap()
            .unwrap();
        let mut again = Slots::open(dir.path(), "one").unwrap();
        assert!(again.take_back(slot));
        assert!(!again.take_back(slot));
        assert_ne!(again.take(|_| false).unwrap(), Some(slot));
    }
}
