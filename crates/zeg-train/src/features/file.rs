//! Stores encoded augmented copies in a file, so that a resumed run or another run with the same encoder can reuse
//! them.
//!
//! It is a safetensors file with three tensors per copy: `N.patches` `[patches, dim]` and `N.global` `[dim]` in `f16`,
//! `N.labels` `[size, size]` in `u16`. Its metadata hold everything that the copies depend on (their origin); a file
//! with another origin is not used.
//!
//! The origin is a [`Fingerprint`] that has to be equal in every part, unlike that of a checkpoint, which may lack some.

use std::{borrow::Cow, collections::HashMap, path::Path, sync::Arc};

use half::f16;
use safetensors::{Dtype, SafeTensors, View as Tensor};
use serde::{Deserialize, Serialize};
use zeg_base::{
    file::{self, Overwrite},
    fingerprint::Fingerprint,
};
use zeg_data::sampler::Sampler;

use super::{AugmentedCopy, FeatureCache};
use crate::{TrainError, batch::Features};

/// Version of the file layout; in version 1 the origin did not name how label files are read.
const FORMAT: u32 = 2;
const INFO: &str = "zeg-features";

/// The metadata of the file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Info {
    format: u32,
    /// Everything that the copies depend on.
    origin: Fingerprint,
    #[serde(alias = "pictures")]
    images: usize,
    size: usize,
    seed: u64,
    grid: [usize; 2],
    ids: Vec<String>,
}

/// Values of a tensor to write; they are converted to bytes one tensor at a time, when the writer needs them.
enum Values<'a> {
    Halves(&'a [f16]),
    Labels(&'a [u16]),
}

struct Part<'a> {
    values: Values<'a>,
    shape: Vec<usize>,
}

impl Tensor for Part<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Halves(_) => Dtype::F16,
            Values::Labels(_) => Dtype::U16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            Values::Halves(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Values::Labels(values) => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self.values {
            Values::Halves(values) => size_of_val(values),
            Values::Labels(values) => size_of_val(values),
        }
    }
}

impl FeatureCache {
    /// Writes all copies atomically.
    ///
    /// - `origin`: everything that the copies depend on, such as the encoder's digest, the preprocessing and the label
    ///   rule
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(&self, path: &Path, origin: &Fingerprint) -> Result<(), TrainError> {
        let grid = self
            .copies
            .first()
            .map_or([0, 0], |copy| copy.features.grid);
        let info = Info {
            format: FORMAT,
            origin: origin.clone(),
            images: self.image_count,
            size: self.size,
            seed: self.seed,
            grid,
            ids: self.copies.iter().map(|copy| copy.id.clone()).collect(),
        };
        let invalid = |reason: String| TrainError::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let json = serde_json::to_string(&info).map_err(|error| invalid(error.to_string()))?;
        let tensors = self.copies.iter().enumerate().flat_map(|(number, copy)| {
            let Features {
                patches, global, ..
            } = copy.features.as_ref();
            let dim = global.len();
            let part =
                |name: &str, values, shape| (format!("{number}.{name}"), Part { values, shape });
            [
                part(
                    "patches",
                    Values::Halves(patches),
                    vec![patches.len() / dim.max(1), dim],
                ),
                part("global", Values::Halves(global), vec![dim]),
                part(
                    "labels",
                    Values::Labels(&copy.labels),
                    vec![self.size, self.size],
                ),
            ]
        });
        let tensors: Vec<(String, Part)> = tensors.collect();
        let fill = |temporary: &Path| {
            let metadata = HashMap::from([(INFO.to_owned(), json)]);
            safetensors::serialize_to_file(tensors, Some(metadata), temporary)
                .map_err(std::io::Error::other)
        };
        file::make_folder_of(path)
            .and_then(|()| file::write_by_path(path, Overwrite::Replace, fill))
            .map_err(|source| TrainError::Write {
                path: path.to_owned(),
                source,
            })
    }

    /// Reads copies with this `origin`; returns `None` if the file does not exist, is damaged, or has another origin.
    pub fn open(path: &Path, origin: &Fingerprint) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).ok()?;
        let info: Info = serde_json::from_str(metadata.metadata().as_ref()?.get(INFO)?).ok()?;
        if info.format != FORMAT || info.origin != *origin || info.images == 0 {
            return None;
        }
        let tensors = SafeTensors::deserialize(&bytes).ok()?;
        let patches = info.grid[0].checked_mul(info.grid[1])?;
        let pixels = info.size.checked_mul(info.size)?;
        let mut copies = Vec::with_capacity(info.ids.len());
        for (number, id) in info.ids.into_iter().enumerate() {
            let read = |name: &str, dtype: Dtype| {
                let tensor = tensors.tensor(&format!("{number}.{name}")).ok()?;
                (tensor.dtype() == dtype).then(|| words(tensor.data()))
            };
            let halves = |name: &str| {
                let values = read(name, Dtype::F16)?;
                Some(values.into_iter().map(f16::from_bits).collect::<Vec<_>>())
            };
            let (global, patch_values) = (halves("global")?, halves("patches")?);
            let labels = read("labels", Dtype::U16)?;
            if patch_values.len() != patches.checked_mul(global.len())? || labels.len() != pixels {
                return None;
            }
            let features = Features {
                patches: patch_values,
                global,
                grid: info.grid,
            };
            copies.push(AugmentedCopy {
                features: Arc::new(features),
                labels,
                id,
            });
        }
        if copies.is_empty() || !copies.len().is_multiple_of(info.images) {
            return None;
        }
        Some(Self {
            copies,
            image_count: info.images,
            size: info.size,
            seed: info.seed,
            sampler: Sampler::new(info.images, info.seed),
        })
    }
}

/// Decodes little-endian 16-bit words.
fn words(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.as_chunks::<2>().0.iter();
    pairs.map(|pair| u16::from_le_bytes(*pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> FeatureCache {
        let copy = |number: u16| AugmentedCopy {
            features: Arc::new(Features {
                patches: (0..8)
                    .map(|v| f16::from_f32(f32::from(v + number)))
                    .collect(),
                global: vec![f16::from_f32(0.5), f16::from_f32(-1.0)],
                grid: [2, 2],
            }),
            labels: vec![number, 1, u16::MAX, u16::MAX - 1],
            id: format!("image-{number}"),
        };
        FeatureCache {
            copies: vec![copy(0), copy(1), copy(2), copy(3)],
            image_count: 2,
            size: 2,
            seed: 7,
            sampler: Sampler::new(2, 7),
        }
    }

    #[test]
    fn copies_are_read_back_unchanged_and_only_for_their_own_origin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.safetensors");
        let origin = |encoder: &str| {
            Fingerprint::new()
                .with("weights: SHA-256", encoder)
                .with("seed", 7)
        };
        let (other, origin) = (origin("other"), origin("abc"));
        let mut written = cache();
        written.save(&path, &origin).unwrap();
        let mut read = FeatureCache::open(&path, &origin).unwrap();
        for step in 0..5 {
            let (a, b) = (written.batch(step, 3), read.batch(step, 3));
            assert_eq!((&a.labels, &a.ids, a.size), (&b.labels, &b.ids, b.size));
            let values = |samples: &crate::batch::Samples| match &samples.inputs {
                crate::batch::Inputs::Features(features) => features
                    .iter()
                    .map(|f| (f.patches.clone(), f.global.clone(), f.grid))
                    .collect::<Vec<_>>(),
                crate::batch::Inputs::Images(_) => vec![],
            };
            assert_eq!(values(&a), values(&b));
        }
        assert!(FeatureCache::open(&path, &other).is_none());
        // A part that only one of both has is a difference, too.
        assert!(FeatureCache::open(&path, &origin.clone().with("device", "cpu")).is_none());
        assert!(FeatureCache::open(&path, &origin.only(|name| name != "seed")).is_none());
        assert!(FeatureCache::open(&folder.path().join("none"), &origin).is_none());
        // A truncated file is not used, and reading it does not panic.
        let bytes = std::fs::read(&path).unwrap();
        for length in (0..bytes.len()).step_by(7) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(FeatureCache::open(&path, &origin).is_none(), "{length}");
        }
    }

    /// A file whose values were damaged has the same length and the same header.
    #[test]
    fn a_copy_with_a_value_that_is_not_finite_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("features.safetensors");
        let origin = Fingerprint::new().with("seed", 7);
        let mut damaged = cache();
        assert_eq!(damaged.not_finite(), None);
        let features = Arc::make_mut(&mut damaged.copies[2].features);
        features.patches[5] = f16::NAN;
        damaged.save(&path, &origin).unwrap();
        let read = FeatureCache::open(&path, &origin).unwrap();
        assert_eq!(read.not_finite(), Some("image-2"));
    }
}
