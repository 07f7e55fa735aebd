//! Control groups. A v2 group holds every sandbox: it places, freezes and kills. Limits come
//! from v2 controllers where the host has them there, else from v1 hierarchies.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use warren_types::Resources;

use super::slot::Slot;
use crate::{RuntimeError, Usage};

/// Controllers that limits need.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
const CPU_PERIOD_MICROS: u64 = 100_000;
const MIB: u64 = 1024 * 1024;
/// Dead processes leave their group a moment after they are reported dead.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(4);
/// A process that does not stop by then sleeps in the kernel, as on a dead disk.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How often a frozen group may run on for the end of a vfork, and for how long the first
/// time; each time it is longer by as much. About a second in all.
const SETTLE_ATTEMPTS: u32 = 30;
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// Where this instance's groups are.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    /// `(mount)/warren-INSTANCE` in the v2 hierarchy.
    v2: PathBuf,
    /// The same in the v1 hierarchy of each controller that v2 lacks.
    v1: Vec<(&'static str, PathBuf)>,
}

/// The hierarchies of the host, from its mount table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    v2: Option<PathBuf>,
    v1: Vec<(&'static str, PathBuf)>,
}

impl Hierarchies {
    /// Reads the format of `/proc/self/mountinfo`.
    pub(crate) fn parse(mounts: &str) -> Self {
        let mut found = Self::default();
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(path) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if found.v2.is_none() => found.v2 = Some(path.into()),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    for name in CONTROLLERS {
                        if options.split(',').any(|option| option == name) {
                            found.v1.push((name, path.into()));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }
}

const NO_V2: RuntimeError = RuntimeError::Unsupported {
    feature: "a cgroup v2 hierarchy",
    fix: "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
};
const NO_CONTROLLER: RuntimeError = RuntimeError::Unsupported {
    feature: "a cgroup controller for memory, cpu or pids",
    fix: "boot with systemd.unified_cgroup_hierarchy=1, or mount the v1 hierarchies",
};

fn step(source: io::Error) -> RuntimeError {
    RuntimeError::Step {
        step: "set up cgroups".to_owned(),
        source,
    }
}

impl Cgroups {
    /// Finds out what the host has and makes the groups of the instance.
    pub(crate) fn open(instance: &str) -> Result<Self, RuntimeError> {
        let (root, here, cgroups) = Self::locate(instance)?;
        cgroups.make(&root, &here).map_err(step)?;
        Ok(cgroups)
    }

    /// Tells what the host has, without changing anything.
    pub(crate) fn available() -> Result<String, RuntimeError> {
        let (_, _, cgroups) = Self::locate("")?;
        let old: Vec<_> = cgroups.v1.iter().map(|(name, _)| *name).collect();
        Ok(match old.as_slice() {
            [] => "v2 with all controllers".to_owned(),
            old => format!("v2, with {} in v1", old.join(", ")),
        })
    }

    /// Root of the v2 hierarchy, its controllers, and where the instance's groups would be.
    fn locate(instance: &str) -> Result<(PathBuf, BTreeSet<String>, Self), RuntimeError> {
        let found = Hierarchies::read().map_err(step)?;
        let root = found.v2.ok_or(NO_V2)?;
        let here: BTreeSet<String> = fs::read_to_string(root.join("cgroup.controllers"))
            .map_err(step)?
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let name = format!("warren-{instance}");
        let mut v1 = Vec::new();
        for controller in CONTROLLERS {
            if here.contains(controller) {
                continue;
            }
            let hierarchy = found.v1.iter().find(|(name, _)| *name == controller);
            let (_, path) = hierarchy.ok_or(NO_CONTROLLER)?;
            v1.push((controller, path.join(&name)));
        }
        let v2 = root.join(&name);
        Ok((root, here, Self { v2, v1 }))
    }

    fn make(&self, root: &Path, here: &BTreeSet<String>) -> io::Result<()> {
        let wanted: Vec<_> = CONTROLLERS
            .iter()
            .filter(|name| here.contains(**name))
            .collect();
        fs::create_dir_all(&self.v2)?;
        for name in wanted {
            for dir in [root, &self.v2] {
                fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"))?;
            }
        }
        for (_, path) in &self.v1 {
            fs::create_dir_all(path)?;
        }
        Ok(())
    }

    /// Whether an instance of this name has no group left on the host.
    pub(crate) fn is_gone(&self, instance: &str) -> bool {
        !self
            .v2
            .with_file_name(format!("warren-{instance}"))
            .exists()
    }

    /// The group of a slot, which need not exist.
    pub(crate) fn of(&self, slot: Slot) -> Cgroup {
        let name = slot.cgroup();
        Cgroup {
            v2: self.v2.join(&name),
            v1: self
                .v1
                .iter()
                .map(|(kind, path)| (*kind, path.join(&name)))
                .collect(),
        }
    }

    /// Slots that have a group in any hierarchy.
    pub(crate) fn slots(&self) -> io::Result<BTreeSet<Slot>> {
        let mut slots = BTreeSet::new();
        for dir in self.v1.iter().map(|(_, path)| path).chain([&self.v2]) {
            for entry in fs::read_dir(dir)? {
                slots.extend(entry?.file_name().to_str().and_then(Slot::of_cgroup));
            }
        }
        Ok(slots)
    }

    /// Removes the instance's groups; those of its slots must be gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for (_, path) in &self.v1 {
            remove_group(path)?;
        }
        remove_group(&self.v2)
    }
}

/// Groups of one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    v2: PathBuf,
    v1: Vec<(&'static str, PathBuf)>,
}

impl Cgroup {
    /// Makes the groups; what an earlier user of the slot left must be gone.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir(&self.v2)?;
        for (_, path) in &self.v1 {
            if let Err(error) = fs::create_dir(path) {
                self.remove()?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Directory of the v2 group.
    pub(crate) fn v2(&self) -> &Path {
        &self.v2
    }

    /// Directories of all groups.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let v1 = self.v1.iter().map(|(_, path)| path.clone());
        v1.chain([self.v2.clone()]).collect()
    }

    /// Processes in the group.
    pub(crate) fn processes(&self) -> io::Result<Vec<u32>> {
        let listed = fs::read_to_string(self.v2.join("cgroup.procs"))?;
        let pids = listed.lines().map(str::parse).collect::<Result<_, _>>();
        pids.map_err(io::Error::other)
    }

    /// A descriptor for cloning into the group.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.v2)?.into())
    }

    /// Moves a process into the v1 groups.
    pub(crate) fn attach(&self, pid: u32) -> io::Result<()> {
        for (_, path) in &self.v1 {
            fs::write(path.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.v1
            .iter()
            .find(|(name, _)| *name == controller)
            .map(|(_, path)| path.as_path())
    }

    /// Puts the limits in force.
    pub(crate) fn limit(&self, resources: &Resources) -> io::Result<()> {
        let memory = (u64::from(resources.memory_mib) * MIB).to_string();
        match self.dir("memory") {
            Some(dir) => {
                fs::write(dir.join("memory.limit_in_bytes"), &memory)?;
                // Memory and swap together; absent where swap is not accounted.
                optional(fs::write(dir.join("memory.memsw.limit_in_bytes"), &memory))?;
            }
            None => {
                fs::write(self.v2.join("memory.max"), &memory)?;
                optional(fs::write(self.v2.join("memory.swap.max"), "0"))?;
            }
        }
        let quota = u64::from(resources.cpu_count) * CPU_PERIOD_MICROS;
        match self.dir("cpu") {
            Some(dir) => {
                fs::write(dir.join("cpu.cfs_period_us"), CPU_PERIOD_MICROS.to_string())?;
                fs::write(dir.join("cpu.cfs_quota_us"), quota.to_string())?;
            }
            None => {
                fs::write(
                    self.v2.join("cpu.max"),
                    format!("{quota} {CPU_PERIOD_MICROS}"),
                )?;
            }
        }
        let pids = self.dir("pids").unwrap_or(&self.v2).join("pids.max");
        fs::write(pids, resources.max_processes.to_string())
    }

    /// Stops every process in the group. On return none runs; on failure all do.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        self.write_freeze(true)?;
        if let Err(error) = self.wait_frozen() {
            self.write_freeze(false)?;
            return Err(error);
        }
        Ok(())
    }

    /// Freezes the group such that no thread is in the middle of a vfork: the kernel counts one
    /// that waits for its child as frozen, but nobody can trace it until the child has gone on.
    /// Lets a frozen group run for an instant where needed, at most [`SETTLE_ATTEMPTS`] times.
    /// Tells which thread still waits after that. The group is frozen on return.
    pub(crate) fn settle(&self) -> io::Result<Option<u32>> {
        for attempt in 1..=SETTLE_ATTEMPTS {
            self.freeze()?;
            if self.in_vfork()?.is_none() {
                return Ok(None);
            }
            self.thaw()?;
            std::thread::sleep(SETTLE_PAUSE * attempt);
        }
        self.freeze()?;
        self.in_vfork()
    }

    /// A thread of the frozen group that waits for a child it has vforked. What is frozen in
    /// any other way waits interruptibly.
    fn in_vfork(&self) -> io::Result<Option<u32>> {
        let threads = fs::read_to_string(self.v2.join("cgroup.threads"))?;
        for thread in threads.lines() {
            let stat = match fs::read_to_string(format!("/proc/{thread}/stat")) {
                // Killed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) =>
                {
                    continue;
                }
                other => other?,
            };
            // The kernel counts it from a moment before it waits.
            if matches!(state(&stat), Some('D' | 'R')) {
                return Ok(thread.parse().ok());
            }
        }
        Ok(None)
    }

    /// Lets the processes of the group run.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.write_freeze(false)
    }

    /// Whether the group was told to be frozen.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.v2.join("cgroup.freeze"))?.trim() == "1")
    }

    fn write_freeze(&self, frozen: bool) -> io::Result<()> {
        fs::write(
            self.v2.join("cgroup.freeze"),
            if frozen { "1" } else { "0" },
        )
    }

    /// Waits until no process of a group that is being frozen runs.
    fn wait_frozen(&self) -> io::Result<()> {
        let mut events = File::open(self.v2.join("cgroup.events"))?;
        let deadline = Instant::now() + FREEZE_LIMIT;
        loop {
            // Reading also arms the next notification.
            let mut text = String::new();
            events.rewind()?;
            events.read_to_string(&mut text)?;
            if field(&text, "frozen") == 1 {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = [PollFd::new(&events, PollFlags::PRI)];
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Kills every process in the group. No error when there is none, or no group.
    pub(crate) fn kill(&self) -> io::Result<()> {
        absent(fs::write(self.v2.join("cgroup.kill"), "1"))
    }

    /// Removes the groups, waiting briefly for dead processes to leave them.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for (_, path) in &self.v1 {
            remove_group(path)?;
        }
        remove_group(&self.v2)
    }

    /// How often the kernel killed a process in the group for lack of memory.
    pub(crate) fn oom_kills(&self) -> io::Result<u64> {
        let file = match self.dir("memory") {
            Some(dir) => dir.join("memory.oom_control"),
            None => self.v2.join("memory.events"),
        };
        Ok(field(&fs::read_to_string(file)?, "oom_kill"))
    }

    /// The most memory that the group ever used; 0 where the kernel does not tell.
    fn memory_peak(&self) -> u64 {
        let file = match self.dir("memory") {
            Some(dir) => dir.join("memory.max_usage_in_bytes"),
            // Since Linux 5.19.
            None => self.v2.join("memory.peak"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// CPU and memory in use; the disk is not known here.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        let cpu = fs::read_to_string(self.v2.join("cpu.stat"))?;
        let (current, cache) = match self.dir("memory") {
            Some(dir) => (
                fs::read_to_string(dir.join("memory.usage_in_bytes"))?,
                field(&fs::read_to_string(dir.join("memory.stat"))?, "total_cache"),
            ),
            None => (
                fs::read_to_string(self.v2.join("memory.current"))?,
                field(&fs::read_to_string(self.v2.join("memory.stat"))?, "file"),
            ),
        };
        let current: u64 = current.trim().parse().map_err(io::Error::other)?;
        Ok(Usage {
            cpu_micros: field(&cpu, "usage_usec"),
            memory_used: current.saturating_sub(cache),
            memory_cache: cache,
            disk_used: 0,
            oom_kills: self.oom_kills()?,
            memory_peak: self.memory_peak(),
        })
    }

    /// Whether a process (as `/proc/PID/cgroup` tells) is in this group.
    pub(crate) fn holds(&self, pid: u32) -> io::Result<bool> {
        let listed = fs::read_to_string(self.v2.join("cgroup.procs"))?;
        Ok(listed.lines().any(|line| line == pid.to_string()))
    }
}

/// The state in a thread's `stat` file. Its name, before it, may hold anything.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The number after `name` in the kernel's "name number" lines; 0 when it is not listed.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(' ')?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        // Opening a file of a group for creation is refused where it does not exist.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn remove_group(path: &Path) -> io::Result<()> {
    for _ in 0..REMOVE_ATTEMPTS {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            other => return absent(other),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_host_are_found() {
        let mounts = "\
25 20 0:22 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
26 20 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 20 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
28 20 0:25 / /proc rw - proc proc rw
";
        let found = Hierarchies::parse(mounts);
        assert_eq!(found.v2, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(
            found.v1,
            [
                ("cpu", PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")),
                ("memory", PathBuf::from("/sys/fs/cgroup/memory")),
            ]
        );
    }

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state("12 (a) D) b) S 1 12 12 0"), Some('S'));
        assert_eq!(state("12 (sh) D 1 12 12 0"), Some('D'));
        assert_eq!(state("12 (sh"), None);
    }

    #[test]
    fn a_field_is_matched_by_its_whole_name() {
        let text = "oom 4\noom_kill_disable 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), 3);
        assert_eq!(field(text, "total_cache"), 0);
    }
}
