//! The draws of a loader that makes the whole or a part of every batch.

use crate::DataError;

/// The draws that a loader makes.
pub(super) struct Draws {
    /// The first draw of the first batch.
    pub(super) first: u64,
    /// Number of samples of a whole batch.
    pub(super) batch_size: u64,
    /// Positions in a batch of the samples that are loaded.
    pub(super) positions: Vec<usize>,
}

impl Draws {
    /// Returns a draw by its number among those of the loader.
    pub(super) fn draw(&self, number: u64) -> u64 {
        let each = self.positions.len().max(1) as u64;
        let (batch, index) = (number / each, number % each);
        let position = self.positions.get(index as usize).copied().unwrap_or(0);
        self.first + batch * self.batch_size + position as u64
    }
}

/// Checks the positions in a batch of the samples to load.
pub(super) fn check_positions(positions: &[usize], batch_size: usize) -> Result<(), DataError> {
    let legal = "at least one, each below the batch size";
    let value = match positions.iter().find(|&&position| position >= batch_size) {
        None if !positions.is_empty() => return Ok(()),
        None => "none".to_owned(),
        Some(position) => position.to_string(),
    };
    let setting = "positions";
    Err(DataError::Setting {
        setting,
        value,
        legal,
    })
}
