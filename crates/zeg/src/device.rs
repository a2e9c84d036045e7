//! Chooses the device that tensors live on at run time: `cpu`, `cuda:0` or `webgpu`.

use std::{fmt, str::FromStr};

use burn::tensor::Device;

/// A device as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// All cores of the processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by number; needs a build with the feature `cuda`.
    Cuda(usize),
    /// A GPU through WebGPU; needs a build with the feature `webgpu`.
    WebGpu,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown =
            || format!("unknown device {text:?}; devices are cpu, cuda, cuda:N, webgpu and auto");
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "webgpu" => Ok(Self::WebGpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(unknown),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::WebGpu => f.write_str("webgpu"),
        }
    }
}

impl DeviceChoice {
    /// Opens the device, without autodiff.
    ///
    /// # Errors
    /// Returns an error if this build has no support for the device.
    pub fn open(self) -> Result<Device, String> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Ok(Device::webgpu(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => Err(self.unsupported("cuda")),
            #[cfg(not(feature = "webgpu"))]
            Self::WebGpu => Err(self.unsupported("webgpu")),
        }
    }
}

#[cfg(not(all(feature = "cuda", feature = "webgpu")))]
impl DeviceChoice {
    fn unsupported(self, feature: &str) -> String {
        format!(
            "this build of zeg has no support for device {self}; build it with `--features {feature}`"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_round_trip_and_unknown_names_are_rejected() {
        for name in ["cpu", "cuda:3", "webgpu"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        assert!(
            "cuda:x"
                .parse::<DeviceChoice>()
                .unwrap_err()
                .contains("cuda:x")
        );
    }
}
