//! What a template may ask for its sandboxes.

use warren_types::Resources;

use crate::Limits;

/// CPUs of a sandbox where a request names none.
const DEFAULT_CPUS: u32 = 2;
/// Memory in MiB, the same way.
const DEFAULT_MEMORY_MIB: u32 = 1024;
const MAX_CPUS: u32 = 32;
const MIN_MEMORY_MIB: u32 = 128;

/// Why resources are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourcesError {
    /// None at all.
    #[error("CPU count must be at least 1")]
    NoCpu,
    /// More than any sandbox can have.
    #[error("CPU count must be at most {MAX_CPUS}")]
    Cpus,
    /// An odd number.
    #[error("CPU count must be 1 or an even number")]
    OddCpus,
    /// More than the team may have.
    #[error(
        "CPU count can't be higher than {0} (if you need to increase this limit, please contact \
         support)"
    )]
    CpuLimit(u32),
    /// Too little to start.
    #[error("Memory must be at least {MIN_MEMORY_MIB} MiB")]
    LittleMemory,
    /// An odd number.
    #[error("Memory must be divisible by 2")]
    OddMemory,
    /// More than the team may have.
    #[error(
        "Memory can't be higher than {0} MiB (if you need to increase this limit, please contact \
         support)"
    )]
    MemoryLimit(u32),
}

/// Checks what a request asks for; what it leaves out is filled in. What steps write takes
/// nothing from the disk of a sandbox, so free space is the disk's size; a wish for more than
/// there may be is met as far as it can be.
pub(crate) fn check(
    cpus: Option<u32>,
    memory_mib: Option<u32>,
    min_free_disk_mib: Option<u64>,
    limits: &Limits,
) -> Result<Resources, ResourcesError> {
    use ResourcesError as E;
    let cpu_count = cpus.unwrap_or(DEFAULT_CPUS.min(limits.max_cpus));
    let memory_mib = memory_mib.unwrap_or(DEFAULT_MEMORY_MIB.min(limits.max_memory_mib));
    match cpu_count {
        0 => return Err(E::NoCpu),
        cpus if cpus > MAX_CPUS => return Err(E::Cpus),
        cpus if cpus != 1 && cpus % 2 != 0 => return Err(E::OddCpus),
        cpus if cpus > limits.max_cpus => return Err(E::CpuLimit(limits.max_cpus)),
        _ => {}
    }
    match memory_mib {
        mib if mib < MIN_MEMORY_MIB => return Err(E::LittleMemory),
        mib if mib % 2 != 0 => return Err(E::OddMemory),
        mib if mib > limits.max_memory_mib => {
            return Err(E::MemoryLimit(limits.max_memory_mib));
        }
        _ => {}
    }
    let disk_mib = u32::try_from(min_free_disk_mib.unwrap_or_default())
        .unwrap_or(u32::MAX)
        .min(limits.max_disk_mib);
    Ok(Resources {
        cpu_count,
        memory_mib,
        disk_mib: limits.disk_mib.max(disk_mib),
        ..Resources::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_are_told_in_order() {
        use ResourcesError as E;
        let limits = Limits::default();
        let cpu = |cpus| check(Some(cpus), None, None, &limits);
        assert_eq!(cpu(0), Err(E::NoCpu));
        assert_eq!(cpu(33), Err(E::Cpus));
        assert_eq!(cpu(3), Err(E::OddCpus));
        assert_eq!(cpu(10), Err(E::CpuLimit(8)));
        let memory = |mib| check(None, Some(mib), None, &limits);
        assert_eq!(memory(127), Err(E::LittleMemory));
        assert_eq!(memory(129), Err(E::OddMemory));
        assert_eq!(memory(8098), Err(E::MemoryLimit(8096)));
        let plain = check(None, None, None, &limits).unwrap();
        assert_eq!((plain.cpu_count, plain.memory_mib), (2, 1024));
        assert_eq!(plain.disk_mib, limits.disk_mib);
        let disk = |mib| check(None, None, Some(mib), &limits).unwrap().disk_mib;
        assert_eq!(disk(0), limits.disk_mib, "it never shrinks");
        assert_eq!(disk(20_000), 20_000);
        assert_eq!(disk(u64::MAX), limits.max_disk_mib);
    }

    proptest! {
        #[test]
        fn what_is_let_through_can_be_had(cpus: u32, mib: u32) {
            let limits = Limits::default();
            if let Ok(resources) = check(Some(cpus), Some(mib), None, &limits) {
                prop_assert!((1..=limits.max_cpus).contains(&resources.cpu_count));
                prop_assert!((128..=limits.max_memory_mib).contains(&resources.memory_mib));
            }
        }
    }
}
