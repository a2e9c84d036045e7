//! The parts of a divided run: their journals, and that they belong together.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use zeg::eval::Shard;
use zeg_base::{hex, paths::path_text, plural::counted};

use crate::commands::segment::{
    finished::{Done, Finished},
    part::{Part, PartImage},
};

/// Parts that do not make a whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// A folder has no journal, or that of a run that was not divided.
    #[error("{}: holds no part of a divided run", .0.display())]
    NoPart(PathBuf),
    /// Two folders are parts of different runs.
    #[error(
        "{}: is part {} of {}, but {} is part {} of {}",
        folder.display(), shard.index, shard.count, other.display(), of_other.index, of_other.count
    )]
    OtherCount {
        folder: PathBuf,
        shard: Shard,
        other: PathBuf,
        of_other: Shard,
    },
    /// Two folders are the same part.
    #[error("{} and {}: both are part {part}", folder.display(), other.display())]
    Twice {
        folder: PathBuf,
        other: PathBuf,
        part: u64,
    },
    /// A folder is named twice.
    #[error("{}: is named twice", .0.display())]
    NamedTwice(PathBuf),
    /// A part is not there.
    #[error("part {part} of {count} is missing")]
    Missing { part: u64, count: u64 },
    /// The parts were taken from different lists of images.
    #[error("{} and {}: the parts are of different lists of images", folder.display(), other.display())]
    OtherList { folder: PathBuf, other: PathBuf },
    /// The parts were made with different settings.
    #[error("{}: was made with other settings than {}: {difference}", folder.display(), other.display())]
    OtherSettings {
        folder: PathBuf,
        other: PathBuf,
        /// The first settings that differ, with both values.
        difference: String,
    },
    /// A part has images to do.
    #[error("{}: not finished: {}, such as {}", folder.display(), counted(*count, "image"), image.display())]
    Unfinished {
        folder: PathBuf,
        image: PathBuf,
        /// Number of images that are not finished.
        count: usize,
    },
    /// The folder after `-o` holds one of the parts.
    #[error("{}: -o is the folder of this part", .0.display())]
    OutputIsPart(PathBuf),
}

impl MergeError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoPart(_) => "`zeg segment … --shard I/N -o FOLDER` writes a part",
            Self::OtherCount { .. } | Self::Twice { .. } | Self::NamedTwice(_) => {
                "name the folders of one divided run, each once"
            }
            Self::Missing { .. } => "run this part, and name the folders of all parts",
            Self::OtherList { .. } => {
                "run all parts with the same images; a folder that changed meanwhile is another list"
            }
            Self::OtherSettings { .. } => "run all parts with the same settings",
            Self::Unfinished { .. } => {
                "run this part again with --resume; --skip-missing leaves out images that cannot be segmented"
            }
            Self::OutputIsPart(_) => "name another folder for the whole",
        }
    }
}

/// A part with its journal.
pub(super) struct OpenPart {
    pub(super) folder: PathBuf,
    pub(super) part: Part,
    pub(super) finished: Finished,
}

/// A finished image of a part.
pub(super) struct PlacedImage<'a> {
    /// Its position in the whole list.
    pub(super) place: u64,
    pub(super) part: &'a OpenPart,
    pub(super) image: &'a PartImage,
    pub(super) done: Done<'a>,
}

impl PlacedImage<'_> {
    /// Returns the path of the image.
    pub(super) fn path(&self) -> PathBuf {
        let known = self.done.origin.map(PathBuf::from);
        known.unwrap_or_else(|| self.image.relative.clone())
    }
}

impl OpenPart {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        match Finished::open_part(folder)? {
            Some((finished, part)) => Ok(Self {
                folder: folder.to_owned(),
                part,
                finished,
            }),
            None => Err(MergeError::NoPart(folder.to_owned()).into()),
        }
    }

    /// Returns the finished images and the others.
    pub(super) fn images(&self) -> (Vec<PlacedImage<'_>>, Vec<&PartImage>) {
        let Shard { index, count } = self.part.shard;
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (number, image) in (0_u64..).zip(&self.part.images) {
            match self.finished.done(&path_text(&image.stem)) {
                Some(done) => found.push(PlacedImage {
                    place: number * count + index - 1,
                    part: self,
                    image,
                    done,
                }),
                None => missing.push(image),
            }
        }
        (found, missing)
    }
}

/// Opens the parts, and checks that they make a whole.
///
/// # Errors
/// Returns a [`MergeError`] if they do not, or the error of a journal.
pub(super) fn open_parts(folders: &[PathBuf]) -> anyhow::Result<Vec<OpenPart>> {
    // Its journal is locked as soon as it is open.
    let mut known = HashSet::new();
    for folder in folders {
        let path = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        if !known.insert(path) {
            return Err(MergeError::NamedTwice(folder.clone()).into());
        }
    }
    let opened = folders.iter().map(|folder| OpenPart::open(folder));
    let mut parts = opened.collect::<anyhow::Result<Vec<_>>>()?;
    parts.sort_by_key(|part| part.part.shard.index);
    let Some(first) = parts.first() else {
        return Ok(parts);
    };
    for part in &parts {
        check_pair(first, part)?;
    }
    for (part, number) in parts.iter().zip(1_u64..) {
        let Shard { index, count } = part.part.shard;
        let before = parts.get((number as usize).wrapping_sub(2));
        if let Some(other) = before.filter(|other| other.part.shard.index == index) {
            let folder = part.folder.clone();
            let other = other.folder.clone();
            return Err(MergeError::Twice {
                folder,
                other,
                part: index,
            }
            .into());
        }
        if index != number {
            let part = number;
            return Err(MergeError::Missing { part, count }.into());
        }
    }
    let (found, count) = (parts.len() as u64, first.part.shard.count);
    if found < count {
        let part = found + 1;
        return Err(MergeError::Missing { part, count }.into());
    }
    Ok(parts)
}

/// Checks that a part is of the same run as the first one.
fn check_pair(first: &OpenPart, part: &OpenPart) -> Result<(), MergeError> {
    let (folder, other) = (part.folder.clone(), first.folder.clone());
    let (shard, of_other) = (part.part.shard, first.part.shard);
    if shard.count != of_other.count {
        return Err(MergeError::OtherCount {
            folder,
            shard,
            other,
            of_other,
        });
    }
    if let Some(difference) = first.finished.difference(&part.finished) {
        return Err(MergeError::OtherSettings {
            folder,
            other,
            difference,
        });
    }
    if part.part.kinds != first.part.kinds {
        let difference = format!(
            "--write was {} and is {}",
            first.part.kinds.join(","),
            part.part.kinds.join(",")
        );
        return Err(MergeError::OtherSettings {
            folder,
            other,
            difference,
        });
    }
    if part.part.list != first.part.list {
        return Err(MergeError::OtherList { folder, other });
    }
    Ok(())
}

/// Returns the SHA-256 of a file's content.
pub(super) fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}
