//! The images to segment: files, folders and patterns, and standard input as `-`.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use zeg::{
    image::{
        DecodedImage, ImageError, decode_image, decode_image_bytes, image_size,
        inputs::{InputImage, Recursion, expand},
        source::MAX_FILE_BYTES,
    },
    model::weights::file_sha256,
    session::LARGE_IMAGE,
};
use zeg_base::{hex, paths::path_text};

/// The argument that stands for standard input, and for standard output as the place of results.
pub(super) const STANDARD: &str = "-";
/// Name of the results of an image from standard input.
const STDIN_NAME: &str = "stdin";

/// An image to segment.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) image: InputImage,
    /// Its bytes, if it comes from standard input.
    bytes: Option<Vec<u8>>,
}

impl Input {
    /// Creates the input for a file.
    ///
    /// - `relative`: its path within the folder that was named
    pub(super) fn of_file(path: PathBuf, relative: PathBuf) -> Self {
        Self {
            image: InputImage { path, relative },
            bytes: None,
        }
    }

    /// Whether the image comes from standard input.
    pub(super) fn is_stdin(&self) -> bool {
        self.bytes.is_some()
    }

    /// Decodes the image.
    pub(super) fn decode(&self) -> Result<DecodedImage, ImageError> {
        match &self.bytes {
            Some(bytes) => decode_image_bytes(bytes, Path::new("standard input")),
            None => decode_image(&self.image.path),
        }
    }

    /// Returns what tells the image from another one of the same name: its absolute path, or `-` for standard input.
    pub(super) fn origin(&self) -> String {
        if self.bytes.is_some() {
            return STANDARD.to_owned();
        }
        let path = &self.image.path;
        path_text(&path.canonicalize().unwrap_or_else(|_| path.clone()))
    }

    /// Returns the SHA-256 of the encoded image; `None` if it cannot be read.
    pub(super) fn digest(&self) -> Option<String> {
        match &self.bytes {
            Some(bytes) => Some(hex::encode(Sha256::digest(bytes))),
            None => file_sha256(&self.image.path).ok(),
        }
    }

    /// Whether the image is small enough to be segmented at the same time as others.
    ///
    /// An image whose size cannot be read counts as large.
    pub(super) fn is_small(&self) -> bool {
        image_size(&self.image.path).is_ok_and(|(w, h)| w.saturating_mul(h) <= LARGE_IMAGE)
    }
}

/// Returns the images that the arguments stand for, and reads standard input if one of them is `-`.
///
/// A file of this name can be given as `./-`.
///
/// # Errors
/// Returns an error for the first argument that stands for no image, or if standard input cannot be read.
pub(super) fn inputs(arguments: &[PathBuf], recursion: Recursion) -> anyhow::Result<Vec<Input>> {
    let is_stdin = |argument: &PathBuf| argument == Path::new(STANDARD);
    let of_files = |arguments: &[PathBuf]| -> anyhow::Result<Vec<Input>> {
        let images = expand(arguments, recursion)?.into_iter();
        Ok(images.map(|image| Input { image, bytes: None }).collect())
    };
    let Some(place) = arguments.iter().position(is_stdin) else {
        return of_files(arguments);
    };
    let (before, after) = (&arguments[..place], &arguments[place + 1..]);
    anyhow::ensure!(
        !after.iter().any(is_stdin),
        "standard input (`-`) holds one image and can be named once"
    );
    let mut inputs = Vec::new();
    if !before.is_empty() {
        inputs.extend(of_files(before)?);
    }
    inputs.push(Input {
        image: InputImage {
            path: STANDARD.into(),
            relative: STDIN_NAME.into(),
        },
        bytes: Some(read_stdin()?),
    });
    if !after.is_empty() {
        inputs.extend(of_files(after)?);
    }
    Ok(inputs)
}

/// Reads the bytes of an image from standard input.
fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let stdin = io::stdin().lock();
    anyhow::ensure!(
        !stdin.is_terminal(),
        "standard input is a terminal; write the image into it with `< FILE` or a pipe"
    );
    let mut bytes = Vec::new();
    let read = stdin.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.context("standard input cannot be read")?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ImageError::FileTooLarge {
            path: "standard input".into(),
            bytes: bytes.len() as u64,
            limit: MAX_FILE_BYTES,
        }
        .into());
    }
    Ok(bytes)
}
