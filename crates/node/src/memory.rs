//! How much memory the host has left.

use std::fs;

/// Share of memory that is available, in percent, as the kernel tells it in `meminfo`.
fn parse(meminfo: &str) -> Option<u8> {
    let field = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let total = field("MemTotal:")?.max(1);
    u8::try_from(field("MemAvailable:")?.min(total) * 100 / total).ok()
}

/// Share of memory that is available now, in percent; `None` if the kernel does not tell.
pub(crate) fn available_pct() -> Option<u8> {
    parse(&fs::read_to_string("/proc/meminfo").ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n";
        assert_eq!(parse(text), Some(25));
        assert_eq!(parse("MemTotal: 5 kB"), None);
    }
}
