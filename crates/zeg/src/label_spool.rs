//! Stores the label maps that an evaluation predicts on disk, until it is known which of them are shown in the gallery.
//!
//! Maps are stored as runs of equal labels in an unnamed temporary file, a few kilobytes each for an ordinary photo.
//! Main memory holds only the size and position of each map.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
};

use zeg_base::file::{temporary_error, unnamed};
use zeg_image::LabelMap;

/// Size in bytes of a stored run: the label and its length.
const RUN: usize = size_of::<u16>() + size_of::<u32>();

/// Label maps in an unnamed temporary file, addressed by number.
#[derive(Debug)]
pub struct LabelSpool {
    file: File,
    maps: Vec<StoredMap>,
}

/// Size of a stored map and its position in the file.
#[derive(Debug, Clone, Copy)]
struct StoredMap {
    width: usize,
    height: usize,
    start: u64,
    bytes: usize,
}

impl LabelSpool {
    /// Creates an empty spool.
    ///
    /// # Errors
    /// Returns an error if no temporary file can be created.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            file: unnamed()?,
            maps: Vec::new(),
        })
    }

    /// Stores a map and returns its number; the first is 0.
    ///
    /// # Errors
    /// Returns an error if the map cannot be written.
    pub fn push(&mut self, labels: &LabelMap) -> io::Result<usize> {
        let mut bytes = Vec::new();
        for run in labels.labels().chunk_by(|a, b| a == b) {
            for part in run.chunks(u32::MAX as usize) {
                bytes.extend(part[0].to_le_bytes());
                bytes.extend((part.len() as u32).to_le_bytes());
            }
        }
        let start = self.file.seek(SeekFrom::End(0))?;
        let written = self.file.write_all(&bytes);
        written.map_err(|error| temporary_error(&error))?;
        self.maps.push(StoredMap {
            width: labels.width(),
            height: labels.height(),
            start,
            bytes: bytes.len(),
        });
        Ok(self.maps.len() - 1)
    }

    /// Reads a map back.
    ///
    /// # Errors
    /// Returns an error if there is no map of this number, or if the file cannot be read.
    pub fn get(&mut self, number: usize) -> io::Result<LabelMap> {
        let map = self.maps.get(number).copied();
        let map = map.ok_or_else(|| {
            let text = format!("no label map {number}: {} are stored", self.maps.len());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        self.file.seek(SeekFrom::Start(map.start))?;
        let mut bytes = vec![0; map.bytes];
        self.file.read_exact(&mut bytes)?;
        let mut labels = Vec::with_capacity(map.width * map.height);
        for run in bytes.as_chunks::<RUN>().0 {
            let [a, b, c, d, e, f] = *run;
            let (label, length) = (u16::from_le_bytes([a, b]), u32::from_le_bytes([c, d, e, f]));
            labels.extend(std::iter::repeat_n(label, length as usize));
        }
        LabelMap::new(map.width, map.height, labels).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_back_as_they_were_in_any_order() {
        let mut spool = LabelSpool::new().unwrap();
        let maps: Vec<LabelMap> = (1..6_usize)
            .map(|n| {
                let labels = (0..n * 7).map(|i| [3, 3, 255, 70][i / n % 4]).collect();
                LabelMap::new(7, n, labels).unwrap()
            })
            .collect();
        for (number, map) in maps.iter().enumerate() {
            assert_eq!(spool.push(map).unwrap(), number);
        }
        for number in [3, 0, 4, 1, 2] {
            assert_eq!(spool.get(number).unwrap(), maps[number]);
        }
        assert!(
            spool
                .get(5)
                .unwrap_err()
                .to_string()
                .contains("no label map 5")
        );
    }
}
