//! Digests of files, by which weights are recognised.

use std::{fs::File, io::Read as _, path::Path};

use sha2::{Digest as _, Sha256};
use zeg_base::hex;

use crate::WeightsError;

/// Returns the SHA-256 of a file in lower-case hexadecimal digits.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, WeightsError> {
    let mut hasher = Sha256::new();
    hash_file(path, &mut hasher, &mut |_| {})?;
    Ok(hex::encode(hasher.finalize()))
}

/// Feeds a file to a digest and calls `fed` with the number of bytes after every piece.
pub(crate) fn hash_file(
    path: &Path,
    hasher: &mut Sha256,
    fed: &mut dyn FnMut(u64),
) -> Result<(), WeightsError> {
    let read = |source| WeightsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(read)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        hasher.update(bytes);
        fed(count as u64);
    }
}
