//! Describes a machine's processor and devices, and which of them this build uses.

use burn::tensor::Device;
use serde::Serialize;
use zeg_kernels::{Level, integer_instructions, runs_on};

/// Description of a machine as this build sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Machine {
    /// Vector instruction sets of the processor, out of those that this program or its libraries can use.
    pub features: Vec<&'static str>,
    /// Number of cores that the system offers to this process.
    pub cores: usize,
    /// Number of threads in the compute pool.
    pub threads: usize,
    /// Devices that this build can compute on, as `--device` names them.
    pub devices: Vec<String>,
    /// Implementation of the operations on the chosen device: fused kernels and their level, or the tensor library.
    pub kernels: String,
    /// Every kernel level that this processor supports, fastest last.
    pub levels: Vec<String>,
    /// Instructions that compute products of 8-bit integers; `None` if the device has no kernels for them.
    pub integers: Option<String>,
}

impl Machine {
    /// Describes this machine and this build.
    ///
    /// - `device`: the device whose kernels are described
    pub fn found(device: &Device) -> Self {
        let level = Level::current();
        let (kernels, integers) = if runs_on(device) {
            let integers = integer_instructions(level);
            (format!("fused, {level}"), Some(integers))
        } else {
            ("composed of the tensor library's operations".into(), None)
        };
        Self {
            features: features(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
            devices: devices(),
            kernels,
            levels: Level::available().iter().map(Level::to_string).collect(),
            integers,
        }
    }
}

/// Returns the devices of the backends that this build includes.
fn devices() -> Vec<String> {
    #[allow(unused_mut)] // one device, unless a feature adds more
    let mut devices = vec!["cpu".to_owned()];
    #[cfg(feature = "cuda")]
    {
        let found = Device::enumerate(burn::tensor::DeviceType::Cuda);
        devices.extend((0..found.len()).map(|index| format!("cuda:{index}")));
    }
    #[cfg(feature = "webgpu")]
    {
        let found = Device::enumerate(burn::tensor::DeviceType::WebGpu);
        devices.extend(found.iter().take(1).map(|_| "webgpu".to_owned()));
    }
    devices
}

/// Returns the instruction sets that the processor has.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let known = [
        ("SSE4.2", is_x86_feature_detected!("sse4.2")),
        ("AVX", is_x86_feature_detected!("avx")),
        ("AVX2", is_x86_feature_detected!("avx2")),
        ("FMA", is_x86_feature_detected!("fma")),
        ("F16C", is_x86_feature_detected!("f16c")),
        ("AVX-VNNI", is_x86_feature_detected!("avxvnni")),
        ("AVX-512F", is_x86_feature_detected!("avx512f")),
        ("AVX-512BW", is_x86_feature_detected!("avx512bw")),
        ("AVX-512DQ", is_x86_feature_detected!("avx512dq")),
        ("AVX-512VL", is_x86_feature_detected!("avx512vl")),
        ("AVX-512 VNNI", is_x86_feature_detected!("avx512vnni")),
        ("AVX-512 BF16", is_x86_feature_detected!("avx512bf16")),
        ("AVX-512 FP16", is_x86_feature_detected!("avx512fp16")),
    ];
    present(&known)
}

/// Returns the instruction sets that the processor has.
#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    let known = [
        ("NEON", is_aarch64_feature_detected!("neon")),
        ("FP16", is_aarch64_feature_detected!("fp16")),
        ("dot product", is_aarch64_feature_detected!("dotprod")),
        ("I8MM", is_aarch64_feature_detected!("i8mm")),
        ("BF16", is_aarch64_feature_detected!("bf16")),
        ("SVE", is_aarch64_feature_detected!("sve")),
    ];
    present(&known)
}

/// Returns nothing: instruction sets are not detected on this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn present(known: &[(&'static str, bool)]) -> Vec<&'static str> {
    let present = known.iter().filter(|(_, present)| *present);
    present.map(|&(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_described() {
        let machine = Machine::found(&Device::flex());
        assert!(machine.cores > 0 && machine.threads > 0, "{machine:?}");
        assert_eq!(machine.devices[0], "cpu");
        assert_eq!(machine.levels[0], "portable");
        let fastest = machine.levels.last().unwrap();
        assert!(machine.kernels.ends_with(fastest.as_str()), "{machine:?}");
        assert!(machine.integers.is_some());
        let has = |name: &str| machine.features.contains(&name);
        assert_eq!(machine.levels.contains(&"AVX2".to_owned()), has("AVX2"));
    }
}
