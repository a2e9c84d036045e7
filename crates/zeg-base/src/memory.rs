//! Memory that the machine has, so that work that cannot fit is refused before it starts.
//!
//! An allocation that is too large ends the program without a word, or makes the machine swap for minutes. An estimate
//! beforehand is an error with a number instead. Estimates are lower bounds: they refuse only what cannot succeed.

use std::fmt;

/// Work that needs more memory than the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuchMemory {
    /// Estimate of the bytes that are needed at least.
    pub needed: u64,
    /// Bytes that the machine, or the limit of its container, allows.
    pub limit: u64,
}

impl fmt::Display for TooMuchMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this needs at least {} of memory; this machine has {}",
            amount(self.needed),
            amount(self.limit)
        )
    }
}

impl std::error::Error for TooMuchMemory {}

/// Checks that an estimate of the needed bytes does not exceed the memory of the machine.
///
/// Where the system does not tell its memory (only Linux does), 1 TiB is assumed.
///
/// # Errors
/// Returns an error with both numbers if it does.
pub fn check(needed: u64) -> Result<(), TooMuchMemory> {
    within(needed, limit().unwrap_or(1 << 40))
}

fn within(needed: u64, limit: u64) -> Result<(), TooMuchMemory> {
    if needed <= limit {
        return Ok(());
    }
    Err(TooMuchMemory { needed, limit })
}

/// Returns the product of sizes, at most `u64::MAX`.
pub fn product(sizes: &[usize]) -> u64 {
    sizes
        .iter()
        .fold(1, |product: u64, size| product.saturating_mul(*size as u64))
}

/// Returns the bytes that a process can use: memory and swap of the machine, or the limit of its control group.
fn limit() -> Option<u64> {
    let machine = machine(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let groups = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    let group = groups
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        .min();
    Some(group.map_or(machine, |group: u64| machine.min(group)))
}

/// Returns the bytes of memory and swap that a text in the form of `/proc/meminfo` states.
fn machine(text: &str) -> Option<u64> {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let swap = kibibytes("SwapTotal:").unwrap_or(0);
    Some(
        kibibytes("MemTotal:")?
            .saturating_add(swap)
            .saturating_mul(1024),
    )
}

/// Returns bytes as text, such as `1.5 GiB`.
pub fn amount(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_are_read() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nSwapTotal:      1024 kB\n";
        assert_eq!(machine(text), Some((16384 + 1024) * 1024));
        assert_eq!(machine("MemTotal: many kB"), None);
        assert_eq!(machine(""), None);
    }

    #[test]
    fn work_beyond_the_memory_is_refused_with_both_numbers() {
        assert_eq!(within(5, 5), Ok(()));
        let error = within(3 << 40, 16 << 30).unwrap_err().to_string();
        assert_eq!(
            error,
            "this needs at least 3.0 TiB of memory; this machine has 16.0 GiB"
        );
        assert!(check(u64::MAX).is_err() && check(1).is_ok());
        assert_eq!(product(&[usize::MAX, 3]), u64::MAX);
    }
}
