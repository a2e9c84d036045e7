//! Memory that the machine has, so that work that cannot fit is refused before it starts.
//!
//! An allocation that is too large ends the program without a word, or makes the machine swap for minutes. An estimate
//! beforehand is an error with a number instead. Estimates are lower bounds: they refuse only what cannot succeed.

use std::fmt;

/// Estimates below this many bytes, 16 MiB, are not checked.
const CHECKED: u64 = 1 << 24;

/// Work that needs more memory than there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuchMemory {
    /// Estimate of the bytes that are needed at least.
    pub needed: u64,
    /// Bytes that the machine, the limit of its container, or the limit of the process allows.
    pub limit: u64,
    /// What the limit applies to.
    pub limited: Limited,
}

/// What a limit of memory applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The machine or its container.
    Machine,
    /// This process, which uses a part of the limit already (`ulimit -v`).
    Process,
}

impl fmt::Display for TooMuchMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, limit) = (amount(self.needed), amount(self.limit));
        match self.limited {
            Limited::Machine => write!(
                f,
                "this needs at least {needed} of memory; this machine has {limit}"
            ),
            Limited::Process => write!(
                f,
                "this needs at least {needed} of memory, more than is left of the {limit} that this process may use"
            ),
        }
    }
}

impl std::error::Error for TooMuchMemory {}

/// Checks that an estimate of the needed bytes exceeds neither the memory of the machine nor what the process may use.
///
/// Where the system does not tell its memory (only Linux does), 1 TiB is assumed.
///
/// # Errors
/// Returns an error with both numbers if it does.
pub fn check(needed: u64) -> Result<(), TooMuchMemory> {
    if needed < CHECKED {
        return Ok(());
    }
    let limit = limit().unwrap_or(1 << 40);
    within(needed, limit)?;
    if can_reserve(needed) {
        return Ok(());
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    Err(TooMuchMemory {
        needed,
        limit: address_space(&limits).map_or(limit, |process| process.min(limit)),
        limited: Limited::Process,
    })
}

/// Returns whether the system gives the process so many bytes of addresses now; they are not touched and given back.
fn can_reserve(bytes: u64) -> bool {
    let Ok(bytes) = usize::try_from(bytes) else {
        return false;
    };
    let mut probe: Vec<u8> = Vec::new();
    let is_reserved = probe.try_reserve_exact(bytes).is_ok();
    // Without this, the compiler may leave out an allocation that is not used.
    std::hint::black_box(&mut probe);
    is_reserved
}

/// Returns the limit of the process in bytes that a text in the form of `/proc/self/limits` states, if there is one.
fn address_space(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn within(needed: u64, limit: u64) -> Result<(), TooMuchMemory> {
    if needed <= limit {
        return Ok(());
    }
    Err(TooMuchMemory {
        needed,
        limit,
        limited: Limited::Machine,
    })
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
    fn the_limit_of_the_process_is_read_and_named() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max address space         1228800000           unlimited            bytes\n";
        assert_eq!(address_space(limits), Some(1_228_800_000));
        assert_eq!(
            address_space(
                "Max address space         unlimited            unlimited            bytes"
            ),
            None
        );
        assert_eq!(address_space(""), None);
        let error = TooMuchMemory {
            needed: 1 << 30,
            limit: 3 << 29,
            limited: Limited::Process,
        };
        assert_eq!(
            error.to_string(),
            "this needs at least 1.0 GiB of memory, more than is left of the 1.5 GiB that this process may use"
        );
        assert!(can_reserve(1 << 24) && !can_reserve(u64::MAX));
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
