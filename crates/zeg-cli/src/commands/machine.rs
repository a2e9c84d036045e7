//! Description of the machine, for manifests and records.

/// Returns the name of the processor, or `None` where the system does not tell it (only Linux does).
pub(crate) fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Returns system, architecture and processor in one line.
pub(crate) fn name() -> String {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match processor() {
        Some(processor) => format!("{os} {arch}, {processor}"),
        None => format!("{os} {arch}"),
    }
}
