//! What a request asks of an image: settings of the segmentation and the results it wants.

use zeg::{
    export::{ExportFormat, Needs, USUAL_MINIMAL_AREA, USUAL_OPACITY, find_format, formats},
    model::inference::TestTime,
    vocab::classes::ClassQuery,
};
use zeg_base::names::did_you_mean;

use crate::{
    classes::read_classes,
    fields::Fields,
    points::MOST_POINTS,
    problem::{Code, Problem},
};

/// Fields of a request with classes.
pub(crate) const ASK_FIELDS: [&str; 9] = [
    "classes",
    "background",
    "threshold",
    "output",
    "opacity",
    "min_area",
    "candidates",
    "points",
    "response",
];
/// Fields of a request with an image.
pub(crate) const IMAGE_FIELDS: [&str; 4] = ["image_name", "model", "scales", "flip"];

/// Number of classes that are listed for a region or a point, unless another one is named.
const USUAL_CANDIDATES: usize = 3;
/// Most scales of test-time augmentation: each is one more image to encode.
const MOST_SCALES: usize = 8;
/// Most results of a request.
const MOST_OUTPUTS: usize = 16;

/// A result that a request can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The label map as an indexed PNG.
    Labels,
    /// The image with class colours and a legend, as PNG.
    Overlay,
    /// The confidence as a grey PNG.
    Confidence,
    /// The label map as runs of equal labels.
    Runs,
    /// Annotations with run-length codes, as in COCO's files.
    Rle,
    /// Annotations with polygons, as in COCO's files.
    Polygons,
    /// The best classes of each large region.
    Regions,
    /// The files of a format of `zeg segment --write`.
    Export(&'static ExportFormat),
}

impl Output {
    /// Names of the results that are no export format, or are made in memory.
    pub(crate) const OWN: [(&'static str, Self); 7] = [
        ("labels", Self::Labels),
        ("overlay", Self::Overlay),
        ("confidence", Self::Confidence),
        ("runs", Self::Runs),
        ("rle", Self::Rle),
        ("polygons", Self::Polygons),
        ("regions", Self::Regions),
    ];

    /// Returns the result of a name.
    fn by_name(name: &str) -> Result<Self, Problem> {
        let own = Self::OWN.iter().find(|(own, _)| *own == name);
        if let Some((_, output)) = own {
            return Ok(*output);
        }
        if let Some(format) = find_format(name) {
            return Ok(Self::Export(format));
        }
        let known: Vec<&str> = Self::names().collect();
        let like = did_you_mean(name, known.iter().copied());
        let shown: String = name.chars().take(40).collect();
        Err(Problem::new(
            Code::BadValue,
            format!("there is no output {shown:?}{like}"),
        )
        .with_hint(format!("outputs are {}", known.join(", "))))
    }

    /// Returns the names of all results.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        let is_own = |name: &&str| Self::OWN.iter().any(|(own, _)| own == name);
        let exported = formats().map(|format| format.name);
        let own = Self::OWN.iter().map(|(name, _)| *name);
        own.chain(exported.filter(move |name| !is_own(name)))
    }

    /// Returns the name of the result.
    pub(crate) fn name(self) -> &'static str {
        if let Self::Export(format) = self {
            return format.name;
        }
        let own = Self::OWN.iter().find(|(_, output)| *output == self);
        own.map_or("", |(name, _)| name)
    }
}

/// Settings of a segmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentOptions {
    /// Confidence below which a pixel stays unlabelled; 0 labels every pixel, `None` is the model's default.
    pub threshold: Option<f32>,
    /// Test-time augmentation.
    pub test_time: TestTime,
    /// Size in pixels below which a region of the label map takes the label of another one; `None` for no change.
    pub absorbed_area: Option<u64>,
    /// Smallest region in annotations, in pixels.
    pub minimal_area: u64,
    /// Opacity of the colours in overlays, 0 to 1.
    pub opacity: f32,
    /// Number of classes that are listed for a region or a point.
    pub candidates: usize,
    /// Pixels whose scores are returned, `[x, y]`.
    pub points: Vec<[usize; 2]>,
    /// The results.
    pub outputs: Vec<Output>,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        Self {
            threshold: None,
            test_time: TestTime::default(),
            absorbed_area: None,
            minimal_area: USUAL_MINIMAL_AREA,
            opacity: USUAL_OPACITY,
            candidates: USUAL_CANDIDATES,
            points: Vec::new(),
            outputs: Vec::new(),
        }
    }
}

impl SegmentOptions {
    /// Whether a result shows the image with colours, which needs its pixels.
    pub(crate) fn draws_overlays(&self) -> bool {
        self.outputs.iter().any(|output| match output {
            Output::Overlay => true,
            Output::Export(format) => format.needs == Needs::Overlay,
            _ => false,
        })
    }
}

/// Form of the answer to a segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    /// The only result itself.
    File,
    /// A JSON document with all results.
    Json,
}

/// A request for classes on an image.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) classes: Vec<ClassQuery>,
    pub(crate) options: SegmentOptions,
    pub(crate) form: AnswerForm,
}

impl Ask {
    /// Reads the fields that [`ASK_FIELDS`] names.
    ///
    /// # Errors
    /// Returns a problem for the first value that cannot be used.
    pub(crate) fn read(
        fields: &Fields,
        test_time: TestTime,
        most_classes: usize,
    ) -> Result<Self, Problem> {
        let classes = fields.value("classes").ok_or_else(|| {
            Problem::new(Code::BadRequest, "the request has no classes")
                .with_hint("send names separated by commas: curl -F 'classes=dog, sofa|couch' …")
        })?;
        let classes = read_classes(classes, fields.value("background"), most_classes)?;
        let mut outputs: Vec<Output> = Vec::new();
        for name in fields.list("output")? {
            let output = Output::by_name(&name)?;
            if !outputs.contains(&output) {
                outputs.push(output);
            }
        }
        if outputs.len() > MOST_OUTPUTS {
            return Err(Problem::new(
                Code::BadValue,
                format!(
                    "{} outputs; a request takes at most {MOST_OUTPUTS}",
                    outputs.len()
                ),
            ));
        }
        let points = fields.points("points")?;
        if points.len() > MOST_POINTS {
            return Err(Problem::new(
                Code::BadValue,
                format!(
                    "{} points; a request takes at most {MOST_POINTS}",
                    points.len()
                ),
            ));
        }
        let form = answer_form(fields.text("response")?, &outputs, &points)?;
        let usual = SegmentOptions::default();
        let area = fields.count("min_area", u64::from(u32::MAX))?;
        let candidates = fields.count("candidates", most_classes as u64)?;
        let options = SegmentOptions {
            threshold: fields.share("threshold")?,
            test_time,
            absorbed_area: area,
            minimal_area: area.unwrap_or(usual.minimal_area),
            opacity: fields.share("opacity")?.unwrap_or(usual.opacity),
            candidates: candidates.map_or(usual.candidates, |count| count as usize),
            points,
            outputs,
        };
        Ok(Self {
            classes,
            options,
            form,
        })
    }
}

/// Decides whether the answer is a file: if exactly one file is asked for, unless the request wants JSON.
fn answer_form(
    wanted: Option<&str>,
    outputs: &[Output],
    points: &[[usize; 2]],
) -> Result<AnswerForm, Problem> {
    let is_file = |output: &Output| {
        matches!(
            output,
            Output::Labels | Output::Overlay | Output::Confidence | Output::Export(_)
        )
    };
    let has_one_file = matches!(outputs, [output] if is_file(output)) && points.is_empty();
    match wanted {
        None | Some("file") if has_one_file => Ok(AnswerForm::File),
        None | Some("json") => Ok(AnswerForm::Json),
        Some("file") => Err(Problem::new(
            Code::BadValue,
            "`response` is \"file\", but the request does not ask for exactly one file",
        )
        .with_hint("name one file with `output`, such as labels, or leave `response` out")),
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            Err(Problem::new(
                Code::BadValue,
                format!("`response` is {shown:?}; it must be \"file\" or \"json\""),
            ))
        }
    }
}

/// Reads the fields of test-time augmentation.
///
/// # Errors
/// Returns a problem if a scale is out of range, or there are too many.
pub(crate) fn read_test_time(fields: &Fields) -> Result<TestTime, Problem> {
    let mut test_time = TestTime {
        flip: fields.flag("flip")?,
        ..TestTime::default()
    };
    let scales = fields.numbers("scales")?;
    if scales.len() > MOST_SCALES {
        return Err(Problem::new(
            Code::BadValue,
            format!(
                "{} scales; a request takes at most {MOST_SCALES}",
                scales.len()
            ),
        ));
    }
    if !scales.is_empty() {
        test_time.scales = scales;
    }
    let checked = test_time.check();
    checked.map_err(|error| Problem::new(Code::BadValue, error.to_string()))?;
    Ok(test_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_has_one_name() {
        let names: Vec<&str> = Output::names().collect();
        for name in &names {
            assert_eq!(Output::by_name(name).unwrap().name(), *name);
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
        }
        let problem = Output::by_name("lables").unwrap_err();
        assert!(problem.detail().contains("did you mean \"labels\""));
    }

    #[test]
    fn one_file_is_answered_as_it_is() {
        let form = |wanted, outputs: &[Output]| answer_form(wanted, outputs, &[]);
        assert_eq!(form(None, &[Output::Labels]), Ok(AnswerForm::File));
        assert_eq!(form(None, &[Output::Runs]), Ok(AnswerForm::Json));
        assert_eq!(form(None, &[]), Ok(AnswerForm::Json));
        let both = [Output::Labels, Output::Overlay];
        assert_eq!(form(None, &both), Ok(AnswerForm::Json));
        assert_eq!(form(Some("json"), &[Output::Labels]), Ok(AnswerForm::Json));
        assert!(form(Some("file"), &both).is_err());
        assert!(form(Some("xml"), &[Output::Labels]).is_err());
    }
}
