//! Stores the scores of every class at every pixel on disk, for exporters that read them class by class.
//!
//! Scores are computed row by row with all classes together, but read class by class, and they do not fit into memory:
//! an image of 12 megapixels with 171 classes has 8 GB of them.

use std::{
    fs::File,
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    sync::{Mutex, PoisonError},
};

use zeg_base::file::{temporary_error, unnamed};
use zeg_export::ProbabilitySource;

use crate::session::{ScoredStrip, StripVisitor};

/// Size in bytes of a stored score.
const VALUE: usize = size_of::<f32>();

/// A visitor that writes the scores of an image to an unnamed temporary file.
#[derive(Debug)]
pub struct ScoreSpool {
    file: BufWriter<File>,
    classes: usize,
    width: usize,
}

impl ScoreSpool {
    /// Creates an empty temporary file.
    ///
    /// # Errors
    /// Returns an error if no temporary file can be created.
    pub fn new(classes: usize, width: usize) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(unnamed()?),
            classes,
            width,
        })
    }

    /// Ends writing and returns the scores for reading.
    ///
    /// # Errors
    /// Returns an error if the last scores cannot be written.
    pub fn finish(self) -> io::Result<SpooledScores> {
        Ok(SpooledScores {
            file: Mutex::new(
                self.file
                    .into_inner()
                    .map_err(|error| temporary_error(error.error()))?,
            ),
            classes: self.classes,
            width: self.width,
            failure: Mutex::new(None),
        })
    }
}

impl StripVisitor for ScoreSpool {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        for (_, scores) in strip.rows() {
            let bytes: Vec<u8> = scores.iter().flat_map(|v| v.to_le_bytes()).collect();
            let written = self.file.write_all(&bytes);
            written.map_err(|error| temporary_error(&error))?;
        }
        Ok(())
    }
}

/// Scores in an unnamed temporary file: `[height, classes, width]`.
#[derive(Debug)]
pub struct SpooledScores {
    file: Mutex<File>,
    classes: usize,
    width: usize,
    failure: Mutex<Option<io::Error>>,
}

impl SpooledScores {
    /// Reports the first error that reading met; rows that could not be read were filled with 0.
    ///
    /// # Errors
    /// Returns that error.
    pub fn check(&self) -> io::Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take().map_or(Ok(()), Err)
    }

    fn read_row(&self, class: usize, y: usize, row: &mut [f32]) -> io::Result<()> {
        let start = (y * self.classes + class) * self.width * VALUE;
        let mut bytes = vec![0; row.len() * VALUE];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start as u64))?;
        file.read_exact(&mut bytes)?;
        for (value, bytes) in row.iter_mut().zip(bytes.as_chunks::<VALUE>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

impl ProbabilitySource for SpooledScores {
    fn fill_row(&self, class: usize, y: usize, row: &mut [f32]) {
        if let Err(error) = self.read_row(class, y, row) {
            row.fill(0.0);
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(error);
        }
    }
}
