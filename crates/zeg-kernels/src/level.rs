//! The vector instructions that the kernels use, selected at run time.
//!
//! A kernel is written once, as plain code that the compiler vectorises, and compiled for every level; `dispatched!`
//! defines the function that selects a version. A [`Level`] can only be obtained for instructions that this machine
//! has, which makes the calls sound.

use std::{cell::Cell, fmt, str::FromStr, sync::OnceLock};

/// A set of vector instructions that this machine has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    /// The instructions that the target always has: SSE2, NEON.
    Portable,
    /// Eight floats at once, with multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Sixteen floats at once.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// [`Instructions::Avx512`] with sums of products of bytes (VNNI) and of bf16.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
}

/// The level of operations outside [`at_level`].
static USUAL: OnceLock<Level> = OnceLock::new();

thread_local! {
    static CHOSEN: Cell<Option<Level>> = const { Cell::new(None) };
    static COMPOSED: Cell<bool> = const { Cell::new(false) };
}

impl Level {
    /// The level that every machine has.
    pub const PORTABLE: Self = Self(Instructions::Portable);

    /// Returns all levels of this machine, the fastest last.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 {
                levels.push(Self(Instructions::Avx2));
            }
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                levels.push(Self(Instructions::Avx512));
                if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16")
                {
                    levels.push(Self(Instructions::Avx512Bf16));
                }
            }
        }
        levels
    }

    /// Returns the level of operations started by this thread: that of an enclosing [`at_level`], or that of
    /// [`Level::use_everywhere`], or the machine's fastest.
    pub fn current() -> Self {
        CHOSEN.get().unwrap_or_else(|| {
            *USUAL.get_or_init(|| Self::available().pop().unwrap_or(Self::PORTABLE))
        })
    }

    /// Makes this the level of all threads, instead of the machine's fastest, and returns whether it is: the first
    /// operation of the process fixes the level.
    pub fn use_everywhere(self) -> bool {
        *USUAL.get_or_init(|| self) == self
    }

    /// Returns whether the level has an instruction that adds products of bf16.
    pub fn has_bf16(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Instructions::Avx512Bf16;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Returns the name to choose the level by: `portable`, `avx2`, `avx512` or `avx512-bf16`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Returns the instructions, which select the compiled version of a kernel.
    pub(crate) fn instructions(self) -> Instructions {
        self.0
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The display names: `portable`, `AVX2`, `AVX-512`, `AVX-512 BF16`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Bf16 => "AVX-512 BF16",
        })
    }
}

/// A name that is not one of this machine's levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownLevel {
    /// The name.
    pub name: String,
}

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Level::available().into_iter().map(Level::name).collect();
        write!(
            f,
            "this machine has no level {:?}; it has {}",
            self.name,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownLevel {}

/// Reads the names of [`Level::name`].
impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        let mut levels = Self::available().into_iter();
        levels
            .find(|level| level.name() == name)
            .ok_or_else(|| UnknownLevel {
                name: name.to_owned(),
            })
    }
}

/// Returns whether the processor is one of AMD's.
pub(crate) fn is_amd() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        let vendor = std::arch::x86_64::__cpuid(0);
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        name.as_flattened() == b"AuthenticAMD"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs `work` with the operations that this thread starts at `level`; for comparing levels.
///
/// The gradient of an operation runs at the level of its forward pass.
pub fn at_level<T>(level: Level, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CHOSEN.set(self.0);
        }
    }
    let _restore = Restore(CHOSEN.replace(Some(level)));
    work()
}

/// Runs `work` as on a device without kernels of this crate: the operations that this thread starts are composed of
/// burn's own, and models that it builds hold plain weights. This is for comparing the kernels with the operations that
/// they replace.
pub fn composed_alone<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
    let _restore = Restore(COMPOSED.replace(true));
    work()
}

/// Returns whether an enclosing [`composed_alone`] prevents this thread from using kernels.
pub(crate) fn is_composed_alone() -> bool {
    COMPOSED.get()
}

/// Defines a function that runs a kernel in the version compiled for the level of its first argument. The kernel is a
/// function generic over `const FMA: bool` (whether multiply-add is one fast instruction).
macro_rules! dispatched {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $kernel:ident;) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(level: $crate::level::Level, $($arg: $ty),*) $(-> $ret)? {
            use $crate::level::Instructions;

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                $kernel::<true>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                $kernel::<true>($($arg),*)
            }

            match level.instructions() {
                // Every 64-bit ARM has multiply-add.
                Instructions::Portable => {
                    $kernel::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` of AVX2 is only made where this machine was found to have AVX2 and FMA.
                Instructions::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` of AVX-512 is only made where this machine was found to have its F, BW, DQ and VL
                // parts, AVX2 and FMA.
                Instructions::Avx512 | Instructions::Avx512Bf16 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use dispatched;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composed_alone_disables_kernels_until_its_work_ends() {
        let device = burn::tensor::Device::flex();
        assert!(crate::runs_on(&device));
        composed_alone(|| {
            assert!(!crate::runs_on(&device));
            composed_alone(|| assert!(is_composed_alone()));
            assert!(is_composed_alone());
        });
        assert!(crate::runs_on(&device));
    }

    #[test]
    fn levels_are_found_by_their_names() {
        for level in Level::available() {
            assert_eq!(level.name().parse(), Ok(level));
        }
        let error = "avx9".parse::<Level>().unwrap_err().to_string();
        assert!(
            error.contains("\"avx9\"") && error.contains("portable"),
            "{error}"
        );
    }

    #[test]
    fn the_fastest_level_is_the_default_and_a_chosen_level_ends_with_its_work() {
        let levels = Level::available();
        assert!(levels.is_sorted());
        assert_eq!(Some(&Level::current()), levels.last());
        at_level(Level::PORTABLE, || {
            assert_eq!(Level::current(), Level::PORTABLE);
        });
        assert_eq!(Some(&Level::current()), levels.last());
    }
}
