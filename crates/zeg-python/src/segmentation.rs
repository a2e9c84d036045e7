//! The result of an image: arrays, PNGs and annotations.

mod planes;

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use numpy::{PyArray2, PyArray3};
use pyo3::{prelude::*, types::PyBytes};
use zeg::{
    export::{Classes, ExportSettings, Overwrite, SegmentedImage, Summary, find_format, summarize},
    image::{LabelMap, RgbImage, encode_named_png, encode_rgb_png, overlay},
};

use self::planes::{Plane, from_rows, numpy};
use crate::{
    errors::{Kind, exception, of_library},
    work,
};

/// What the library found in an image.
pub(crate) struct Segmented {
    pub(crate) labels: LabelMap,
    /// One value per pixel, row-major, from 0 to 1.
    pub(crate) confidence: Vec<f32>,
    /// `[classes, height, width]`, from 0 to 1.
    pub(crate) scores: Option<Vec<f32>>,
    pub(crate) tied: bool,
}

/// The labels of an image.
///
/// The arrays belong to Python as soon as it asks for them, without a copy; what is drawn or exported afterwards is read
/// from them, with the changes of the user.
#[pyclass(frozen, module = "zeg._zeg")]
pub(crate) struct Segmentation {
    image: Arc<RgbImage>,
    size: [usize; 2],
    classes: Classes,
    method: String,
    tied: bool,
    labels: Mutex<Plane<u16>>,
    confidence: Mutex<Plane<f32>>,
    scores: Mutex<Option<Scores>>,
}

/// The scores of all classes at every pixel.
enum Scores {
    Values(Vec<f32>),
    Array(Py<PyArray3<f32>>),
}

#[pymethods]
impl Segmentation {
    /// Returns the array of labels, `[height, width]`.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u16>>> {
        Plane::array(&self.labels, py, self.size)
    }

    /// Returns the array of confidences, `[height, width]`.
    #[getter]
    fn confidence<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        Plane::array(&self.confidence, py, self.size)
    }

    /// Returns the array of scores, `[classes, height, width]`, if they were asked for.
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray3<f32>>>> {
        numpy(py)?;
        let mut scores = planes::lock(&self.scores, py);
        let array = match scores.take() {
            None => return Ok(None),
            Some(Scores::Array(array)) => array,
            Some(Scores::Values(values)) => {
                let [height, width] = self.size;
                let shape = [self.classes.len(), height, width];
                from_rows(py, shape, values)?.unbind()
            }
        };
        let bound = array.clone_ref(py).into_bound(py);
        *scores = Some(Scores::Array(array));
        Ok(Some(bound))
    }

    /// Returns the names of the classes, by label.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.classes.names().to_vec()
    }

    /// Returns the colours of the classes, by label.
    #[getter]
    fn colours(&self) -> Vec<[u8; 3]> {
        let labels = 0..self.classes.len();
        labels
            .map(|label| self.classes.colour(label as u16))
            .collect()
    }

    /// Returns height and width in pixels.
    #[getter]
    fn size(&self) -> (usize, usize) {
        let [height, width] = self.size;
        (height, width)
    }

    /// Returns whether all classes have the same score at every pixel, so that the labels mean nothing.
    #[getter]
    fn tied(&self) -> bool {
        self.tied
    }

    /// Returns the label map as an indexed PNG with a palette and the class names, as `zeg segment` writes it.
    fn labels_png<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (labels, colours) = (self.label_map(py)?, self.colours());
        let encoded = work::run(py, None, |_| {
            encode_named_png(Path::new("labels"), &labels, &colours, self.classes.names())
        })?;
        let encoded = encoded.map_err(|error| of_library(py, &error.into(), Kind::Other))?;
        Ok(PyBytes::new(py, &encoded))
    }

    /// Returns the image with class colours as PNG, as `zeg segment` writes it.
    fn overlay_png<'py>(&self, py: Python<'py>, opacity: f32) -> PyResult<Bound<'py, PyBytes>> {
        let drawn = self.drawn(py, opacity)?;
        let encoded = work::run(py, None, |_| encode_rgb_png(Path::new("overlay"), &drawn))?;
        let encoded = encoded.map_err(|error| of_library(py, &error.into(), Kind::Other))?;
        Ok(PyBytes::new(py, &encoded))
    }

    /// Returns the image with class colours and a legend below it, `[height, width, 3]`.
    fn overlay<'py>(&self, py: Python<'py>, opacity: f32) -> PyResult<Bound<'py, PyArray3<u8>>> {
        numpy(py)?;
        let drawn = self.drawn(py, opacity)?;
        let shape = [drawn.height() as usize, drawn.width() as usize, 3];
        from_rows(py, shape, drawn.into_raw())
    }

    /// Returns area, confidence and regions of each class as JSON.
    fn summary(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let labels = self.label_map(py)?;
        let confidence = self.confidences(py)?;
        let summary = work::run(py, None, |_| -> anyhow::Result<String> {
            let image = SegmentedImage {
                confidence: Some(&confidence),
                ..SegmentedImage::new(Path::new(name), &labels)
            };
            let summary: Summary = summarize(&image, &self.classes)?;
            Ok(serde_json::to_string(&summary)?)
        })?;
        summary.map_err(|error| of_library(py, &error, Kind::Other))
    }

    /// Returns the content of the file that a format of `zeg segment --write` makes for this image alone.
    fn export<'py>(
        &self,
        py: Python<'py>,
        format: &str,
        name: &str,
        min_area: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let labels = self.label_map(py)?;
        let confidence = self.confidences(py)?;
        let content = work::run(py, None, |_| {
            let image = SegmentedImage {
                confidence: Some(&confidence),
                ..SegmentedImage::new(Path::new(name), &labels)
            };
            self.exported(format, &image, min_area)
        })?;
        let content = content.map_err(|error| of_library(py, &error, Kind::Other))?;
        Ok(PyBytes::new(py, &content))
    }
}

impl Segmentation {
    pub(crate) fn new(
        segmented: Segmented,
        classes: Classes,
        image: Arc<RgbImage>,
        method: String,
    ) -> Self {
        let Segmented {
            labels,
            confidence,
            scores,
            tied,
        } = segmented;
        Self {
            image,
            size: [labels.height(), labels.width()],
            classes,
            method,
            tied,
            labels: Mutex::new(Plane::Values(labels.into_labels())),
            confidence: Mutex::new(Plane::Values(confidence)),
            scores: Mutex::new(scores.map(Scores::Values)),
        }
    }

    /// Returns a copy of the labels as they are now.
    fn label_map(&self, py: Python<'_>) -> PyResult<LabelMap> {
        let [height, width] = self.size;
        let labels = Plane::copied(&self.labels, py, self.size)?;
        let map = LabelMap::new(width, height, labels);
        map.map_err(|error| of_library(py, &error.into(), Kind::Other))
    }

    fn confidences(&self, py: Python<'_>) -> PyResult<Vec<f32>> {
        Plane::copied(&self.confidence, py, self.size)
    }

    fn drawn(&self, py: Python<'_>, opacity: f32) -> PyResult<RgbImage> {
        if !(0.0..=1.0).contains(&opacity) {
            let message = format!("the opacity {opacity} is not from 0 to 1");
            return Err(exception(py, Kind::Settings, &message, None));
        }
        let (labels, colours) = (self.label_map(py)?, self.colours());
        work::run(py, None, |_| {
            overlay(
                &self.image,
                &labels,
                self.classes.names(),
                &colours,
                opacity,
            )
        })
    }

    /// Writes the file of a format into a temporary folder, and returns its content.
    fn exported(
        &self,
        format: &str,
        image: &SegmentedImage<'_>,
        minimal_area: u64,
    ) -> anyhow::Result<Vec<u8>> {
        let found = find_format(format);
        let format = found.ok_or_else(|| anyhow::anyhow!("there is no format {format:?}"))?;
        let folder = tempfile::tempdir()?;
        let mut exporter = format.open(
            self.classes.clone(),
            &ExportSettings {
                folder: folder.path(),
                overwrite: Overwrite::Refuse,
                minimal_area,
                address_prefix: "",
                method: &self.method,
                link_suffix: None,
            },
        )?;
        exporter.add(image)?;
        let files = exporter.finish()?;
        match &files[..] {
            [file] => Ok(fs::read(file)?),
            _ => anyhow::bail!("the format {} writes {} files", format.name, files.len()),
        }
    }
}
