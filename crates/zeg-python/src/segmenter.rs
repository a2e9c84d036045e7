//! Models: loading, encoding and segmenting.

mod load;
mod scores;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use pyo3::prelude::*;
use rayon::ThreadPool;
use zeg::{
    EncodedClasses,
    model::{ModelError, inference::TestTime},
    notices::{TIED, of_single_class},
    session::{EncodedImage, SessionError, SessionSettings, StripVisitor},
    vocab::classes::ClassQuery,
};
use zeg_cli::host;

use self::{load::LoadSettings, scores::ScorePlanes};
use crate::{
    classes::{ClassList, read},
    errors::{Kind, exception, of_library},
    images::Image,
    segmentation::{Segmentation, Segmented},
    work,
};

/// Number of class lists whose embeddings a model keeps.
const MOST_LISTS: usize = 32;

/// A loaded model, which threads may share.
#[pyclass(frozen, module = "zeg._zeg")]
pub(crate) struct Segmenter {
    model: zeg::Segmenter,
    /// Threads of its own; `None` for those that all models share.
    pool: Option<ThreadPool>,
    /// The class lists that were asked for last.
    lists: Mutex<VecDeque<Arc<EncodedClasses>>>,
    /// What is assumed about the files of the model.
    #[pyo3(get)]
    notices: Vec<String>,
}

/// An encoded image, which answers questions with any classes.
#[pyclass(frozen, module = "zeg._zeg")]
pub(crate) struct Encoding {
    encoded: EncodedImage,
    image: Py<Image>,
    test_time: TestTime,
    segmenter: Py<Segmenter>,
}

/// What is asked of an image.
struct Question {
    classes: Arc<EncodedClasses>,
    settings: SessionSettings,
    keeps_scores: bool,
}

#[pymethods]
impl Segmenter {
    #[new]
    fn new(py: Python<'_>, settings: LoadSettings) -> PyResult<Self> {
        let pool = settings.pool(py)?;
        let loaded = work::run(py, pool.as_ref(), |_| settings.load())?;
        let (model, notices) = loaded.map_err(|error| of_library(py, &error, Kind::Model))?;
        Ok(Self {
            model,
            pool,
            lists: Mutex::new(VecDeque::new()),
            notices,
        })
    }

    /// Returns the title of the model's method.
    #[getter]
    fn method(&self) -> &str {
        &self.model.model().method
    }

    /// Segments an image; returns the result, and what a user should know about it.
    #[pyo3(signature = (image, classes, background, threshold, scales, flip, scores))]
    #[allow(
        clippy::too_many_arguments,
        reason = "the arguments of the Python function"
    )]
    fn segment(
        &self,
        py: Python<'_>,
        image: &Image,
        classes: ClassList,
        background: Option<ClassList>,
        threshold: Option<f32>,
        scales: Vec<f64>,
        flip: bool,
        scores: bool,
    ) -> PyResult<(Segmentation, Vec<String>)> {
        let settings = self.settings(py, threshold, test_time(scales, flip))?;
        let (classes, notices) = self.encode_list(py, classes, background)?;
        let question = Question {
            classes,
            settings,
            keeps_scores: scores,
        };
        let segmented = work::run(py, self.pool.as_ref(), |stop| {
            let size = [
                image.pixels.height() as usize,
                image.pixels.width() as usize,
            ];
            let session = self.model.session_with(&question.settings).stopped_by(stop);
            let answer = |visitors: &mut [&mut dyn StripVisitor]| {
                session.segment(&image.pixels, &question.classes.question(), visitors)
            };
            question.answer(size, answer)
        })?;
        self.result(py, segmented, &question, image, notices)
    }

    /// Encodes an image.
    fn encode(
        slf: &Bound<'_, Self>,
        image: &Bound<'_, Image>,
        scales: Vec<f64>,
        flip: bool,
    ) -> PyResult<Encoding> {
        let (py, this) = (slf.py(), slf.get());
        let test_time = test_time(scales, flip);
        let settings = this.settings(py, None, test_time.clone())?;
        let pixels = &image.get().pixels;
        let encoded = work::run(py, this.pool.as_ref(), |stop| {
            let session = this.model.session_with(&settings).stopped_by(stop);
            session.encode(pixels)
        })?;
        Ok(Encoding {
            encoded: encoded.map_err(|error| of_library(py, &error.into(), Kind::Other))?,
            image: image.clone().unbind(),
            test_time,
            segmenter: slf.clone().unbind(),
        })
    }
}

#[pymethods]
impl Encoding {
    /// Segments the image; returns the result, and what a user should know about it.
    #[pyo3(signature = (classes, background, threshold, scores))]
    fn ask(
        &self,
        py: Python<'_>,
        classes: ClassList,
        background: Option<ClassList>,
        threshold: Option<f32>,
        scores: bool,
    ) -> PyResult<(Segmentation, Vec<String>)> {
        let segmenter = self.segmenter.get();
        let settings = segmenter.settings(py, threshold, self.test_time.clone())?;
        let (classes, notices) = segmenter.encode_list(py, classes, background)?;
        let question = Question {
            classes,
            settings,
            keeps_scores: scores,
        };
        let segmented = work::run(py, segmenter.pool.as_ref(), |stop| {
            let session = segmenter.model.session_with(&question.settings);
            let session = session.stopped_by(stop);
            let answer = |visitors: &mut [&mut dyn StripVisitor]| {
                session.ask(&self.encoded, &question.classes.question(), visitors)
            };
            question.answer(self.encoded.size(), answer)
        })?;
        segmenter.result(py, segmented, &question, self.image.get(), notices)
    }

    /// Returns height and width of the image in pixels.
    #[getter]
    fn size(&self) -> (usize, usize) {
        let [height, width] = self.encoded.size();
        (height, width)
    }

    /// Returns the memory that the encoding takes, in bytes.
    #[getter]
    fn nbytes(&self, py: Python<'_>) -> PyResult<u64> {
        let model = self.segmenter.get().model.model().model.as_ref();
        let bytes = self.encoded.bytes(model);
        bytes.map_err(|error| of_library(py, &error.into(), Kind::Other))
    }
}

/// Returns test-time augmentation at these scales, or at the image's own if there are none.
fn test_time(scales: Vec<f64>, flip: bool) -> TestTime {
    let scales = if scales.is_empty() {
        TestTime::default().scales
    } else {
        scales
    };
    TestTime { scales, flip }
}

impl Segmenter {
    /// Returns the settings of a session, as `zeg segment` has them.
    fn settings(
        &self,
        py: Python<'_>,
        threshold: Option<f32>,
        test_time: TestTime,
    ) -> PyResult<SessionSettings> {
        if let Some(threshold) = threshold.filter(|value| !(0.0..=1.0).contains(value)) {
            let message = format!("the threshold {threshold} is not from 0 to 1");
            let hint = "0 labels every pixel; None is the default of the model";
            return Err(exception(py, Kind::Settings, &message, Some(hint)));
        }
        let of_model = |error: ModelError| of_library(py, &error.into(), Kind::Settings);
        test_time.check().map_err(of_model)?;
        let model = self.model.model().model.as_ref();
        test_time.check_model(model).map_err(of_model)?;
        let mut inference = self.model.inference().clone();
        if let Some(threshold) = threshold.or(self.model.default_threshold()) {
            inference.threshold = (threshold > 0.0).then_some(threshold);
        }
        Ok(SessionSettings {
            inference,
            test_time,
        })
    }

    /// Returns classes with their embeddings, and what a user should know about a list that was not asked for lately.
    fn encode_list(
        &self,
        py: Python<'_>,
        classes: ClassList,
        background: Option<ClassList>,
    ) -> PyResult<(Arc<EncodedClasses>, Vec<String>)> {
        let classes = read(py, classes, background)?;
        if let Some(known) = self.known(&classes) {
            return Ok((known, Vec::new()));
        }
        let encoded = work::run(py, self.pool.as_ref(), |stop| {
            self.model.encode_classes_unless(&classes, stop)
        })?;
        let encoded = encoded.map_err(|error| of_library(py, &error, Kind::Classes))?;
        let encoded = Arc::new(encoded);
        let mut notices = host::text_warnings(encoded.notices());
        let scoring = self.model.model().model.scoring();
        if let Some(notice) = of_single_class(classes.len(), scoring) {
            notices.push(format!(
                "{notice}; name what else is in the image as background"
            ));
        }
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.truncate(MOST_LISTS - 1);
        lists.push_front(Arc::clone(&encoded));
        Ok((encoded, notices))
    }

    /// Returns the embeddings of a class list that was asked for lately.
    fn known(&self, classes: &[ClassQuery]) -> Option<Arc<EncodedClasses>> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let place = lists.iter().position(|list| list.classes() == classes)?;
        let found = lists.remove(place)?;
        lists.push_front(Arc::clone(&found));
        Some(found)
    }

    fn result(
        &self,
        py: Python<'_>,
        segmented: anyhow::Result<Segmented>,
        question: &Question,
        image: &Image,
        mut notices: Vec<String>,
    ) -> PyResult<(Segmentation, Vec<String>)> {
        let segmented = segmented.map_err(|error| of_library(py, &error, Kind::Other))?;
        if segmented.tied {
            notices.push(TIED.to_owned());
        }
        let classes = question.classes.export_classes();
        let classes = classes.map_err(|error| of_library(py, &error.into(), Kind::Classes))?;
        let method = self.method().to_owned();
        Ok((
            Segmentation::new(segmented, classes, Arc::clone(&image.pixels), method),
            notices,
        ))
    }
}

impl Question {
    /// Asks for labels and confidence, and for the scores of all classes if they are wanted.
    ///
    /// - `size`: height and width of the image
    /// - `ask`: asks a session, with visitors of the scores
    fn answer(
        &self,
        size: [usize; 2],
        ask: impl FnOnce(&mut [&mut dyn StripVisitor]) -> Result<zeg::session::Answer, SessionError>,
    ) -> anyhow::Result<Segmented> {
        let count = self.classes.classes().len();
        let planes = self.keeps_scores.then(|| ScorePlanes::new(count, size));
        let mut planes = planes.transpose()?;
        let answer = match &mut planes {
            Some(planes) => ask(&mut [planes]),
            None => ask(&mut []),
        }?;
        let found = zeg::Segmentation::from(answer);
        Ok(Segmented {
            labels: found.labels,
            confidence: found.confidence,
            scores: planes.map(ScorePlanes::into_values),
            tied: found.tied,
        })
    }
}

/// Keeps the compiler from accepting a model that threads cannot share.
const _: fn() = || {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Segmenter>();
    is_shared::<AtomicBool>();
};
