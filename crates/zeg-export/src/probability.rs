//! Probability maps: the probability of every class at every pixel.
//!
//! The maps of many classes are larger than all other data of an image. They are requested and written row by row, so
//! that a source may compute them on the fly.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::WriterBuilder as _;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use zeg_image::write::MAX_CLASS_NAMES_BYTES;

use crate::formats::{ExportFormat, ExportSettings, Needs, Opened, own_file};
use crate::output::{Folder, Target};
use crate::{Classes, ExportError, Exporter, Overwrite, SegmentedImage};

/// Keyword of the PNG text chunk that holds the name of the map's class.
pub const CLASS_NAME_KEYWORD: &str = "zeg:class";

/// Probabilities of all classes at all pixels of an image.
pub trait ProbabilitySource: Sync {
    /// Writes the probabilities of a class in row `y` of the image into `row`, one per column, 0..=1.
    ///
    /// Rows are requested class by class, from top to bottom.
    fn fill_row(&self, class: usize, y: usize, row: &mut [f32]);
}

/// Probabilities in memory.
#[derive(Debug, Clone, Copy)]
pub struct ProbabilityPlanes<'a> {
    /// `[classes, height, width]`
    values: &'a [f32],
    width: usize,
    height: usize,
}

impl<'a> ProbabilityPlanes<'a> {
    /// Wraps `values`, `[classes, height, width]`.
    ///
    /// # Errors
    /// Returns [`ExportError::ProbabilityCount`] if the number of values does not fit the shape.
    pub fn new(
        values: &'a [f32],
        classes: usize,
        width: usize,
        height: usize,
    ) -> Result<Self, ExportError> {
        let count = classes
            .checked_mul(height)
            .and_then(|rows| rows.checked_mul(width));
        if count != Some(values.len()) {
            return Err(ExportError::ProbabilityCount {
                given: values.len(),
                classes,
                width,
                height,
            });
        }
        Ok(Self {
            values,
            width,
            height,
        })
    }
}

impl ProbabilitySource for ProbabilityPlanes<'_> {
    fn fill_row(&self, class: usize, y: usize, row: &mut [f32]) {
        let mut rows = self.values.chunks_exact(self.width.max(1));
        let before = class.checked_mul(self.height).filter(|_| y < self.height);
        let found = before.and_then(|before| rows.nth(before.checked_add(y)?));
        // Pixels outside the planes have probability 0.
        row.fill(0.0);
        for (value, found) in row.iter_mut().zip(found.unwrap_or(&[])) {
            *value = *found;
        }
    }
}

/// End of the name of an image's array.
const NPY_SUFFIX: &str = ".probability.npy";

/// Returns the end of the name of an image's map of one class.
fn png_suffix(label: usize) -> String {
    format!(".probability.{label:03}.png")
}

/// The format with one PNG per class.
pub(crate) static PNG_FORMAT: ExportFormat = ExportFormat {
    name: "probabilities",
    about: "NAME.probability.CLASS.png: 16-bit grey, 65535 times the score",
    needs: Needs::Scores,
    image_suffix: None,
    own_files: |stem, classes| {
        let labels = 0..classes;
        labels
            .map(|label| own_file(stem, &png_suffix(label)))
            .collect()
    },
    shared_files: &[],
    open: |classes, settings| open(classes, settings, ProbabilityFormat::Png),
};

/// The format with one array per image.
pub(crate) static NPY_FORMAT: ExportFormat = ExportFormat {
    name: "probabilities-npy",
    about: "NAME.probability.npy: all scores, float16 [classes, height, width]",
    needs: Needs::Scores,
    image_suffix: None,
    own_files: |stem, _| vec![own_file(stem, NPY_SUFFIX)],
    shared_files: &["classes.json"],
    open: |classes, settings| open(classes, settings, ProbabilityFormat::Npy),
};

fn open(classes: Classes, settings: &ExportSettings, format: ProbabilityFormat) -> Opened {
    let (folder, overwrite) = (settings.folder, settings.overwrite);
    let exporter = ProbabilityExporter::create(classes, format, folder, overwrite)?;
    Ok(Box::new(exporter))
}

/// File format of probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbabilityFormat {
    /// One 16-bit grey PNG per class, `STEM.probability.LABEL.png`: 65535 times the probability, rounded, with the name
    /// of the class in the text chunk [`CLASS_NAME_KEYWORD`].
    #[default]
    Png,
    /// One NumPy array per image, `STEM.probability.npy`: `[classes, height, width]` of float16. The class names are in
    /// `classes.json`, which is written once.
    Npy,
}

/// Writes the probability maps of each image.
#[derive(Debug)]
pub struct ProbabilityExporter {
    classes: Classes,
    format: ProbabilityFormat,
    folder: Folder,
    /// `classes.json`; `None` if the format does not need it.
    names: Option<Target>,
}

impl ProbabilityExporter {
    /// Opens the folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// Returns [`ExportError::Exists`] if there is a `classes.json`, and [`ExportError::Unwritable`].
    pub fn create(
        classes: Classes,
        format: ProbabilityFormat,
        folder: &Path,
        overwrite: Overwrite,
    ) -> Result<Self, ExportError> {
        let mut folder = Folder::create(folder, overwrite)?;
        let names = match format {
            ProbabilityFormat::Png => None,
            ProbabilityFormat::Npy => {
                let mut target = folder.target(Path::new("classes"), ".json")?;
                target.fill(|file| {
                    serde_json::to_writer_pretty(&mut *file, classes.names())?;
                    file.write_all(b"\n")
                })?;
                Some(target)
            }
        };
        Ok(Self {
            classes,
            format,
            folder,
            names,
        })
    }
}

impl Exporter for ProbabilityExporter {
    fn add(&mut self, image: &SegmentedImage<'_>) -> Result<(), ExportError> {
        image.check(&self.classes)?;
        let Some(source) = image.probabilities else {
            return Err(ExportError::NoProbabilities {
                image: image.path.into(),
            });
        };
        let (width, height) = (image.width(), image.height());
        match self.format {
            ProbabilityFormat::Png => {
                // Files are written one after the other, because systems limit the number of open files.
                for (label, name) in self.classes.iter() {
                    let suffix = png_suffix(usize::from(label));
                    let mut target = self.folder.target(image.stem, &suffix)?;
                    let map = Map {
                        source,
                        class: usize::from(label),
                        width,
                        height,
                    };
                    target.fill(|file| map.write_png(file, name))?;
                    self.folder.finish(target)?;
                }
                Ok(())
            }
            ProbabilityFormat::Npy => {
                let mut target = self.folder.target(image.stem, NPY_SUFFIX)?;
                let classes = self.classes.len();
                target.fill(|file| write_npy(file, source, classes, width, height))?;
                self.folder.finish(target)
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        if let Some(names) = self.names.take() {
            self.folder.finish(names)?;
        }
        Ok(self.folder.into_files())
    }
}

/// The probabilities of one class.
struct Map<'a> {
    source: &'a dyn ProbabilitySource,
    class: usize,
    width: u32,
    height: u32,
}

impl Map<'_> {
    fn write_png(&self, file: &mut impl Write, name: &str) -> io::Result<()> {
        self.encode_png(file, name).map_err(|error| match error {
            EncodingError::IoError(source) => source,
            other => io::Error::other(other),
        })
    }

    fn encode_png(&self, file: &mut impl Write, name: &str) -> Result<(), EncodingError> {
        let mut encoder = Encoder::new(file, self.width, self.height);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Sixteen);
        encoder.set_compression(Compression::Fast);
        if name.len() <= MAX_CLASS_NAMES_BYTES {
            // A zero byte would end the text chunk.
            encoder.add_itxt_chunk(CLASS_NAME_KEYWORD.into(), name.replace('\0', "\u{fffd}"))?;
        }
        let mut writer = encoder.write_header()?;
        let mut stream = writer.stream_writer()?;
        let mut row = vec![0.0; self.width as usize];
        let mut bytes = Vec::with_capacity(2 * row.len());
        for y in 0..self.height as usize {
            self.source.fill_row(self.class, y, &mut row);
            bytes.clear();
            bytes.extend(row.iter().flat_map(|&value| grey(value).to_be_bytes()));
            stream.write_all(&bytes)?;
        }
        stream.finish()?;
        writer.finish()
    }
}

/// Returns a probability as a 16-bit grey value; NaN counts as 0.
fn grey(probability: f32) -> u16 {
    (f64::from(probability).clamp(0.0, 1.0) * 65535.0).round() as u16 // NaN becomes 0
}

fn write_npy(
    file: &mut impl Write,
    source: &dyn ProbabilitySource,
    classes: usize,
    width: u32,
    height: u32,
) -> io::Result<()> {
    let shape = [classes as u64, u64::from(height), u64::from(width)];
    let options = npyz::WriteOptions::<f16>::new().default_dtype();
    let mut writer = options.shape(&shape).writer(file).begin_nd()?;
    let mut row = vec![0.0_f32; width as usize];
    for class in 0..classes {
        for y in 0..height as usize {
            source.fill_row(class, y, &mut row);
            writer.extend(row.iter().map(|&value| f16::from_f32(clamped(value))))?;
        }
    }
    writer.finish()
}

/// Clamps a probability to 0..=1; NaN counts as 0.
fn clamped(probability: f32) -> f32 {
    if probability.is_nan() {
        0.0
    } else {
        probability.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // copies of numbers, not results of arithmetic
mod tests {
    use super::*;

    #[test]
    fn greys_are_probabilities_in_steps_of_one_in_65535() {
        assert_eq!([0.0, 0.5, 1.0].map(grey), [0, 32768, 65535]);
        assert_eq!(
            [-0.5, 7.0, f32::NAN, f32::INFINITY].map(grey),
            [0, 65535, 0, 65535]
        );
    }

    #[test]
    fn planes_must_be_full_and_end_where_they_end() {
        let values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
        assert!(ProbabilityPlanes::new(&values, 2, 2, 3).is_err());
        assert!(ProbabilityPlanes::new(&[], usize::MAX, usize::MAX, 2).is_err());
        let planes = ProbabilityPlanes::new(&values, 2, 2, 2).unwrap();
        let row = |class, y| {
            let mut row = [9.0; 3];
            planes.fill_row(class, y, &mut row);
            row
        };
        assert_eq!(row(1, 0), [0.5, 0.6, 0.0]);
        assert_eq!(row(0, 2), [0.0; 3]);
        assert_eq!(row(2, 0), [0.0; 3]);
        assert_eq!(row(usize::MAX, 0), [0.0; 3]);
    }
}
