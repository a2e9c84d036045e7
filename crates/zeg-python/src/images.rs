//! Images: decoded files, and pixels of arrays.

use std::{path::PathBuf, sync::Arc};

use numpy::PyReadonlyArray3;
use pyo3::prelude::*;
use zeg::image::{DecodedImage, ImageError, RgbImage, decode_image, decode_image_bytes};

use crate::{
    errors::{Kind, exception, of_library},
    work,
};

/// An image as 8-bit RGB.
#[pyclass(frozen, module = "zeg._zeg")]
pub(crate) struct Image {
    pub(crate) pixels: Arc<RgbImage>,
    /// Name of the image in results.
    #[pyo3(get)]
    name: String,
    /// What is unusual about its file.
    #[pyo3(get)]
    notices: Vec<String>,
}

#[pymethods]
impl Image {
    /// Reads a file.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let decoded = work::run(py, None, |_| decode_image(&path))?;
        Self::of_file(py, decoded, name)
    }

    /// Decodes the content of a file.
    #[staticmethod]
    fn decode(py: Python<'_>, bytes: &[u8], name: String) -> PyResult<Self> {
        let decoded = work::run(py, None, |_| decode_image_bytes(bytes, name.as_ref()))?;
        Self::of_file(py, decoded, name)
    }

    /// Copies the pixels of an array, `[height, width, 3]`, which lies in memory without gaps.
    #[staticmethod]
    fn from_array(py: Python<'_>, array: PyReadonlyArray3<'_, u8>, name: String) -> PyResult<Self> {
        let array = array.as_array();
        let (height, width, channels) = array.dim();
        if channels != 3 {
            let message = format!("{channels} channels instead of 3");
            return Err(exception(py, Kind::Image, &message, None));
        }
        let pixels = match array.as_slice() {
            Some(pixels) => pixels.to_vec(),
            None => array.iter().copied().collect(),
        };
        Self::of_pixels(py, pixels, width, height, name)
    }

    /// Copies pixels: the bytes of all rows, three for each pixel.
    #[staticmethod]
    fn from_bytes(
        py: Python<'_>,
        bytes: &[u8],
        width: usize,
        height: usize,
        name: String,
    ) -> PyResult<Self> {
        Self::of_pixels(py, bytes.to_vec(), width, height, name)
    }

    /// Returns height and width in pixels.
    #[getter]
    fn size(&self) -> (u32, u32) {
        (self.pixels.height(), self.pixels.width())
    }
}

impl Image {
    fn of_file(
        py: Python<'_>,
        decoded: Result<DecodedImage, ImageError>,
        name: String,
    ) -> PyResult<Self> {
        let DecodedImage {
            rgb,
            unused_bits,
            frames,
        } = decoded.map_err(|error| of_library(py, &error.into(), Kind::Image))?;
        let mut notices = Vec::new();
        if let Some(bits) = unused_bits {
            notices.push(format!(
                "{name}: {bits}; multiply the values by {} first",
                bits.factor()
            ));
        }
        if let Some(frames) = frames {
            notices.push(format!(
                "{name}: only the first of {frames} pages or frames is segmented"
            ));
        }
        Ok(Self {
            pixels: Arc::new(rgb),
            name,
            notices,
        })
    }

    fn of_pixels(
        py: Python<'_>,
        pixels: Vec<u8>,
        width: usize,
        height: usize,
        name: String,
    ) -> PyResult<Self> {
        let most = zeg::image::decode::MAX_PIXELS;
        let count = width.checked_mul(height).filter(|count| *count <= most);
        let sides = (u32::try_from(width), u32::try_from(height));
        let made = match (count, sides) {
            (Some(1..), (Ok(width), Ok(height))) => RgbImage::from_raw(width, height, pixels),
            _ => None,
        };
        let pixels = made.ok_or_else(|| {
            let message = format!(
                "{name}: an image of {width}×{height} pixels; there must be from 1 to {most}"
            );
            exception(
                py,
                Kind::Image,
                &message,
                Some("give a smaller part of the image"),
            )
        })?;
        Ok(Self {
            pixels: Arc::new(pixels),
            name,
            notices: Vec::new(),
        })
    }
}
