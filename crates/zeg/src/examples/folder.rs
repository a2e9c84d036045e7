//! A folder of examples: one folder for each class, with pairs of an image and its mask.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use zeg_image::{
    IMAGE_EXTENSIONS, ImageError, LabelMap, RgbImage, decode_labels, decode_mask, decode_rgb,
};
use zeg_model::ModelError;

/// End of the name of a mask, before the extension: `1_mask.png` belongs to `1.jpg`.
pub const MASK_SUFFIX: &str = "_mask";

/// An error of a folder of examples.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// A folder or file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The folder has no folder of a class.
    #[error("{}: no folder of a class, such as dog/ with 1.jpg and 1{MASK_SUFFIX}.png", path.display())]
    NoClasses {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a class has no pair.
    #[error("{}: no image with a mask", path.display())]
    NoPairs {
        /// The folder of the class.
        path: PathBuf,
    },
    /// An image has no mask.
    #[error("{}: no mask; its mask would be {}", path.display(), mask.display())]
    NoMask {
        /// The image.
        path: PathBuf,
        /// A path that its mask could have.
        mask: PathBuf,
    },
    /// A mask has no image.
    #[error("{}: no image of the name {stem:?} belongs to this mask", path.display())]
    NoImage {
        /// The mask.
        path: PathBuf,
        /// The name that the image would have, without its extension.
        stem: String,
    },
    /// Two images or two masks have the same name, apart from the extension.
    #[error("{} and {} have the same name", one.display(), other.display())]
    Twice {
        /// One of the files.
        one: PathBuf,
        /// The other one.
        other: PathBuf,
    },
    /// An image or a mask cannot be decoded.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An image has another size than its mask.
    #[error(
        "{}: the mask has {}×{} pixels, but its image has {}×{}",
        path.display(), mask[0], mask[1], image[0], image[1]
    )]
    Size {
        /// The mask.
        path: PathBuf,
        /// Width and height of the mask.
        mask: [usize; 2],
        /// Width and height of the image.
        image: [usize; 2],
    },
    /// A mask has no pixel.
    #[error("{}: the mask is 0 everywhere", path.display())]
    Empty {
        /// The mask.
        path: PathBuf,
    },
    /// An example cannot be encoded.
    #[error("{}: {source}", path.display())]
    Encode {
        /// The mask.
        path: PathBuf,
        /// The model's error.
        source: ModelError,
    },
    /// The model's method does not score by examples.
    #[error("the method {method} does not score classes by examples")]
    NotUsed {
        /// Name of the method.
        method: String,
    },
    /// A folder is named like no class.
    #[error("the folder of examples {name:?} has the name of no class{advice}")]
    NoClass {
        /// Name of the folder.
        name: String,
        /// A similar name, as the end of a sentence; may be empty.
        advice: String,
    },
}

/// A mask that may mean something else than it is taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaskWarning {
    /// The mask has several values besides 0, as a label map of several classes does; all count as the class.
    Values {
        /// The mask.
        path: PathBuf,
        /// Number of values besides 0.
        count: usize,
    },
    /// The mask covers the whole image.
    Everything {
        /// The mask.
        path: PathBuf,
    },
}

impl fmt::Display for MaskWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values { path, count } => write!(
                f,
                "{}: the mask has {count} values besides 0, and all count as the class; a mask with 0 for everything else \
                 avoids this",
                path.display()
            ),
            Self::Everything { path } => write!(
                f,
                "{}: the mask covers the whole image; every pixel counts as the class",
                path.display()
            ),
        }
    }
}

/// An image with its mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExamplePair {
    /// The image.
    pub image: PathBuf,
    /// The mask: 0 is not of the class, everything else is.
    pub mask: PathBuf,
}

impl ExamplePair {
    /// Reads the image and its mask, whose labels are 0 and 1.
    ///
    /// A mask may be a label file of any kind that is read elsewhere; in one with colours, a pixel counts if a channel is at
    /// least 128.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be read, the sizes differ, or the mask is empty.
    pub fn read(&self) -> Result<(RgbImage, LabelMap), ExampleError> {
        let (image, mask, _) = self.read_with_warnings()?;
        Ok((image, mask))
    }

    /// Reads the pair as [`ExamplePair::read`] does, and says what may be wrong with its mask.
    ///
    /// # Errors
    /// Returns the errors of [`ExamplePair::read`].
    pub fn read_with_warnings(
        &self,
    ) -> Result<(RgbImage, LabelMap, Vec<MaskWarning>), ExampleError> {
        let image = decode_rgb(&self.image)?;
        let (mut mask, path) = (read_mask(&self.mask)?, self.mask.clone());
        let size = [image.width() as usize, image.height() as usize];
        if [mask.width(), mask.height()] != size {
            return Err(ExampleError::Size {
                path,
                mask: [mask.width(), mask.height()],
                image: size,
            });
        }
        let mut values: Vec<u16> = mask.labels().to_vec();
        values.sort_unstable();
        values.dedup();
        let mut warnings = Vec::new();
        match &values[..] {
            [] | [0] => return Err(ExampleError::Empty { path }),
            [0, rest @ ..] if rest.len() > 1 => warnings.push(MaskWarning::Values {
                path,
                count: rest.len(),
            }),
            [first, ..] if *first != 0 => warnings.push(MaskWarning::Everything { path }),
            _ => {}
        }
        for label in mask.labels_mut() {
            *label = u16::from(*label != 0);
        }
        Ok((image, mask, warnings))
    }
}

/// Reads a mask: the values of a label file, or 255 for the light pixels of another image.
fn read_mask(path: &Path) -> Result<LabelMap, ExampleError> {
    if let Ok(labels) = decode_labels(path) {
        return Ok(labels);
    }
    let rgb = decode_mask(path)?;
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    let is_light = |pixel: &[u8]| pixel.iter().any(|&channel| channel >= 128);
    let labels = rgb
        .as_raw()
        .chunks_exact(3)
        .map(|pixel| if is_light(pixel) { 255 } else { 0 });
    Ok(LabelMap::new(width, height, labels.collect())?)
}

/// The examples of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderClass {
    /// Name of the class, that of its folder.
    pub name: String,
    /// Its examples, in the order of their names.
    pub pairs: Vec<ExamplePair>,
}

/// The pairs of a folder of examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleFolder {
    /// The classes, in the order of their names.
    pub classes: Vec<FolderClass>,
}

impl ExampleFolder {
    /// Lists the pairs of a folder: `CLASS/NAME.jpg` with `CLASS/NAME_mask.png`, both with any extension of images. Files
    /// and folders whose names begin with a dot, and files beside the folders of the classes, do not count.
    ///
    /// # Errors
    /// Returns an error if a folder cannot be read, there is no class, a class has no pair, or an image or a mask lacks the
    /// other.
    pub fn open(folder: &Path) -> Result<Self, ExampleError> {
        let mut classes = Vec::new();
        for path in entries(folder)? {
            if path.is_dir() {
                classes.push(FolderClass {
                    name: file_name(&path),
                    pairs: pairs(&path)?,
                });
            }
        }
        if classes.is_empty() {
            return Err(ExampleError::NoClasses {
                path: folder.to_owned(),
            });
        }
        Ok(Self { classes })
    }

    /// Returns the number of examples of all classes.
    pub fn pairs(&self) -> usize {
        self.classes.iter().map(|class| class.pairs.len()).sum()
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Returns what is in a folder, without hidden files, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ExampleError> {
    let failed = |source| ExampleError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if !file_name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Returns the pairs in the folder of a class.
fn pairs(folder: &Path) -> Result<Vec<ExamplePair>, ExampleError> {
    let (mut images, mut masks) = (BTreeMap::new(), BTreeMap::new());
    for path in entries(folder)? {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let is_image = IMAGE_EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known));
        if !is_image || !path.is_file() {
            continue;
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let earlier = match stem.strip_suffix(MASK_SUFFIX) {
            Some(stem) => masks.insert(stem.to_owned(), path.clone()),
            None => images.insert(stem.into_owned(), path.clone()),
        };
        if let Some(one) = earlier {
            return Err(ExampleError::Twice { one, other: path });
        }
    }
    let mut pairs = Vec::new();
    for (stem, image) in images {
        let Some(mask) = masks.remove(&stem) else {
            let mask = folder.join(format!("{stem}{MASK_SUFFIX}.png"));
            return Err(ExampleError::NoMask { path: image, mask });
        };
        pairs.push(ExamplePair { image, mask });
    }
    if let Some((stem, path)) = masks.into_iter().next() {
        return Err(ExampleError::NoImage { path, stem });
    }
    if pairs.is_empty() {
        return Err(ExampleError::NoPairs {
            path: folder.to_owned(),
        });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, []).unwrap();
        }
        folder
    }

    #[test]
    fn pairs_are_found_by_their_names() {
        let of = folder(&[
            "dog/b.JPG",
            "dog/b_mask.png",
            "dog/a.png",
            "dog/a_mask.png",
            "cat/1.webp",
            "cat/1_mask.png",
            "readme.txt",
            ".git/x.jpg",
        ]);
        let found = ExampleFolder::open(of.path()).unwrap();
        let names: Vec<_> = found
            .classes
            .iter()
            .map(|class| (&class.name[..], class.pairs.len()))
            .collect();
        assert_eq!(names, [("cat", 1), ("dog", 2)]);
        assert!(found.classes[1].pairs[0].image.ends_with("a.png"));
        assert_eq!(found.pairs(), 3);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |files: &[&str]| ExampleFolder::open(folder(files).path()).unwrap_err();
        assert!(matches!(
            error(&["a.jpg", "a_mask.png"]),
            ExampleError::NoClasses { .. }
        ));
        assert!(matches!(
            error(&["dog/notes.txt"]),
            ExampleError::NoPairs { .. }
        ));
        let ExampleError::NoMask { mask, .. } = error(&["dog/a.jpg"]) else {
            panic!("no error for a missing mask");
        };
        assert!(mask.ends_with("dog/a_mask.png"));
        assert!(matches!(
            error(&["dog/a_mask.png"]),
            ExampleError::NoImage { .. }
        ));
        assert!(matches!(
            error(&["dog/a.png", "dog/a.jpg"]),
            ExampleError::Twice { .. }
        ));
    }
}
