//! The work on one image, on a thread of the queue: decode, encode classes and image, score, write the results.

mod score;

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use zeg::{
    explain::Explanation,
    export::{Classes, Summary},
    image::{
        DecodedImage, ImageError, LabelMap, OVERLAY_BYTES, RgbImage, decode_image_bytes,
        image_header,
    },
    model::{ModelError, inference::TestTime},
    notices::{TIED, of_single_class},
    session::{EncodedImage, SessionError},
    text_sources::TableError,
    vocab::classes::ClassQuery,
};
use zeg_base::memory::{self, product};

use self::score::{check_size, score};
use crate::{
    encodings::StoredEncoding,
    models::ServedModel,
    options::SegmentOptions,
    outputs::{Annotations, OutputFile, Results},
    points::PointAnswer,
    problem::{Code, Problem},
    queue::Running,
};

/// An image to segment, as a program inside of the server asks for it.
#[derive(Debug, Clone)]
pub struct SegmentJob {
    /// Name of the model; `None` for the default.
    pub model: Option<String>,
    /// Content of the image's file.
    pub image: Bytes,
    /// Name of the image in results; a path is no name.
    pub image_name: String,
    /// The classes, background included.
    pub classes: Vec<ClassQuery>,
    /// Settings, and the results besides the labels.
    pub options: SegmentOptions,
}

/// The image of a request.
#[derive(Debug)]
pub(crate) enum ImageSource {
    /// A file that was sent with the request.
    Upload(Upload),
    /// An encoded image that the server kept.
    Encoded(Arc<StoredEncoding>),
}

/// A file that was sent.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    pub(crate) name: String,
    pub(crate) max_pixels: u64,
}

/// Times of the stages of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Times {
    /// Time in the queue.
    pub queued: Duration,
    /// Decoding the file.
    pub decode: Duration,
    /// Class embeddings.
    pub text: Duration,
    /// Resizing and encoding the image.
    pub encode: Duration,
    /// Scores of the classes and labels.
    pub score: Duration,
    /// Writing the results.
    pub write: Duration,
}

/// A segmented image with the results that were asked for.
#[derive(Debug)]
pub struct Segmented {
    /// Name of the model.
    pub model: String,
    /// Name of its method.
    pub method: String,
    /// Name of the image.
    pub image_name: String,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The class index of every pixel.
    pub labels: LabelMap,
    /// Score of the best class at every pixel, 0 to 1, row-major.
    pub confidence: Vec<f32>,
    /// The classes of the request.
    pub queries: Vec<ClassQuery>,
    /// Names and colours by label.
    pub classes: Classes,
    /// Area, confidence and regions of each class.
    pub summary: Summary,
    /// Files of the results.
    pub files: Vec<OutputFile>,
    /// Annotations, if they are asked for.
    pub annotations: Annotations,
    /// The best classes of each region, if they are asked for.
    pub regions: Option<Vec<Explanation>>,
    /// The best classes at the points of the request.
    pub points: Vec<PointAnswer>,
    /// What a user should know about the image or the classes.
    pub notices: Vec<String>,
    /// Times of the stages.
    pub times: Times,
}

/// An image that is encoded but not kept yet.
pub(crate) struct NewEncoding {
    pub(crate) encoded: EncodedImage,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Memory of the encoding alone.
    pub(crate) bytes: u64,
    pub(crate) notices: Vec<String>,
    pub(crate) times: Times,
}

/// Decodes and encodes an image.
///
/// # Errors
/// Returns a problem if the image cannot be read or is too large.
pub(crate) fn encode(
    model: &ServedModel,
    upload: &Upload,
    test_time: &TestTime,
    running: &Running,
) -> Result<NewEncoding, Problem> {
    let mut times = Times {
        queued: running.queued,
        ..Times::default()
    };
    let mut notices = Vec::new();
    let started = Instant::now();
    let image = decode(upload, &mut notices)?;
    times.decode = started.elapsed();
    stop_if_cancelled(running)?;
    let started = Instant::now();
    let segmenter = model.segmenter();
    let settings = model.settings(None, test_time.clone());
    check_size(&settings, &image, upload.max_pixels)?;
    let session = segmenter.session_with(&settings).stopped_by(running.flag());
    let encoded = session
        .encode(&image)
        .map_err(|error| of_session(error, &upload.name))?;
    times.encode = started.elapsed();
    let bytes = encoded.bytes(segmenter.model().model.as_ref());
    Ok(NewEncoding {
        bytes: bytes.map_err(Problem::internal)?,
        width: image.width() as usize,
        height: image.height() as usize,
        encoded,
        notices,
        times,
    })
}

/// Segments an image and makes the results.
///
/// # Errors
/// Returns a problem if the image cannot be read, the classes cannot be encoded, or a result cannot be made.
pub(crate) fn segment(
    model: &ServedModel,
    source: &ImageSource,
    classes: &[ClassQuery],
    options: &SegmentOptions,
    running: &Running,
) -> Result<Segmented, Problem> {
    let mut times = Times {
        queued: running.queued,
        ..Times::default()
    };
    let mut notices = Vec::new();
    let started = Instant::now();
    let (name, image) = match source {
        ImageSource::Upload(upload) => (&upload.name, Some(decode(upload, &mut notices)?)),
        ImageSource::Encoded(stored) => (&stored.image_name, None),
    };
    let [height, width] = match (source, &image) {
        (ImageSource::Encoded(stored), _) => [stored.height, stored.width],
        (_, Some(image)) => [image.height() as usize, image.width() as usize],
        (_, None) => [0, 0],
    };
    times.decode = started.elapsed();
    check_points(&options.points, [height, width])?;
    check_overlay(options, [height, width])?;
    stop_if_cancelled(running)?;

    let started = Instant::now();
    let encoded_classes = model
        .encode_classes(classes, running.flag())
        .map_err(|error| of_classes(&error))?;
    notices.extend(encoded_classes.notices().iter().map(ToString::to_string));
    notices.extend(notice_of_single_class(model, classes));
    times.text = started.elapsed();
    stop_if_cancelled(running)?;

    let started = Instant::now();
    let scored = score(
        model,
        source,
        image.as_ref(),
        &encoded_classes,
        options,
        [height, width],
        running,
    )
    .map_err(|failure| failure.problem(name))?;
    notices.extend(notice_of_tie(name, scored.tied));
    let scoring = started.elapsed();
    times.encode = scored.encode.min(scoring);
    times.score = scoring.saturating_sub(times.encode);

    let started = Instant::now();
    let queries = encoded_classes.classes().to_vec();
    let class_list = encoded_classes
        .export_classes()
        .map_err(|error| Problem::new(Code::BadClasses, error.to_string()))?;
    let image = match (source, image) {
        (_, Some(image)) => Some(image),
        (ImageSource::Encoded(stored), None) if options.draws_overlays() => {
            let upload = Upload {
                bytes: stored.upload.clone(),
                name: stored.image_name.clone(),
                max_pixels: u64::MAX, // it was small enough when it was encoded
            };
            Some(decode(&upload, &mut Vec::new())?)
        }
        _ => None,
    };
    stop_if_cancelled(running)?;
    let results = Results::make(
        &class_list,
        name,
        &scored.labels,
        &scored.confidence,
        scored.scores.as_ref(),
        image.as_ref(),
        &model.segmenter().model().method,
        options,
    )?;
    times.write = started.elapsed();
    Ok(Segmented {
        model: model.name().to_owned(),
        method: model.segmenter().model().method.clone(),
        image_name: name.clone(),
        width,
        height,
        labels: scored.labels,
        confidence: scored.confidence,
        queries,
        classes: class_list,
        summary: results.summary,
        files: results.files,
        annotations: results.annotations,
        regions: scored.regions,
        points: scored.points,
        notices,
        times,
    })
}

/// Decodes a file, after its header says that it is small enough.
fn decode(upload: &Upload, notices: &mut Vec<String>) -> Result<RgbImage, Problem> {
    let name = Path::new(&upload.name);
    let of_image = |error: ImageError| of_image(&error, upload.max_pixels);
    let header = image_header(&upload.bytes, name).map_err(of_image)?;
    let (width, height) = header.stored;
    let pixels = product(&[width, height]);
    if pixels > upload.max_pixels {
        return Err(Problem::new(
            Code::ImageTooLarge,
            format!(
                "{}: {width}×{height} pixels; this server takes at most {} pixels",
                upload.name, upload.max_pixels
            ),
        )
        .with_hint("send a smaller image, or start the server with a larger --max-pixels"));
    }
    let DecodedImage {
        rgb,
        unused_bits,
        frames,
    } = decode_image_bytes(&upload.bytes, name).map_err(of_image)?;
    if let Some(bits) = unused_bits {
        notices.push(format!("{}: {bits}", upload.name));
    }
    if let Some(frames) = frames {
        notices.push(format!(
            "{}: only the first of {frames} pages or frames is segmented",
            upload.name
        ));
    }
    Ok(rgb)
}

/// Returns a notice of a single class, which a softmax gives to every pixel.
fn notice_of_single_class(model: &ServedModel, classes: &[ClassQuery]) -> Option<String> {
    let notice = of_single_class(classes.len(), model.segmenter().model().model.scoring())?;
    Some(format!(
        "{notice}; name what else is in the image as `background`"
    ))
}

/// Returns a notice of an image in which the model tells no classes apart.
fn notice_of_tie(name: &str, tied: bool) -> Option<String> {
    tied.then(|| format!("{name}: {TIED}"))
}

/// Checks that the overlay of an image can be held in memory beside its labels, before either is computed.
fn check_overlay(options: &SegmentOptions, [height, width]: [usize; 2]) -> Result<(), Problem> {
    if !options.draws_overlays() {
        return Ok(());
    }
    let needed = product(&[width, height, OVERLAY_BYTES + size_of::<u16>()]);
    memory::check(needed).map_err(|error| {
        let detail = format!("drawing the overlay of {width}×{height} pixels: {error}");
        Problem::new(Code::ImageTooLarge, detail)
            .with_hint("send a smaller image, or ask for no overlay")
    })
}

fn check_points(points: &[[usize; 2]], [height, width]: [usize; 2]) -> Result<(), Problem> {
    let outside = points.iter().find(|[x, y]| *x >= width || *y >= height);
    match outside {
        Some([x, y]) => Err(Problem::new(
            Code::BadValue,
            format!("the point {x},{y} is outside of the image of {width}×{height} pixels"),
        )),
        None => Ok(()),
    }
}

fn stop_if_cancelled(running: &Running) -> Result<(), Problem> {
    if running.is_cancelled() {
        return Err(stopped());
    }
    Ok(())
}

/// Returns the problem of work that was stopped; nobody reads it.
fn stopped() -> Problem {
    Problem::new(Code::Timeout, "nobody waits for the answer any more")
        .with_hint("send the request again")
}

/// Returns the problem of class names without embeddings.
///
/// A file that cannot be read any more is no fault of the request, and its path is none of the client's business.
fn of_classes(error: &anyhow::Error) -> Problem {
    let hint = "name classes that the model knows; GET /v1/models lists suggestions";
    for cause in error.chain() {
        match cause.downcast_ref::<ModelError>() {
            Some(ModelError::Stopped) => return stopped(),
            Some(ModelError::UnknownClass { name, known, .. }) => {
                let detail =
                    format!("the table of class embeddings has no class {name:?}; it has {known}");
                return Problem::new(Code::BadClasses, detail).with_hint(hint);
            }
            Some(
                ModelError::Read { .. }
                | ModelError::Format { .. }
                | ModelError::Table { .. }
                | ModelError::Weights(_),
            ) => return unreadable_file(),
            _ if cause.is::<io::Error>() => return unreadable_file(),
            _ => {}
        }
    }
    let table = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<TableError>());
    match table {
        Some(TableError::Unnamed { rows, classes, .. }) => Problem::new(
            Code::BadClasses,
            format!(
                "the table of class embeddings has no names, and its {rows} rows are not one for each of the {classes} classes"
            ),
        )
        .with_hint("ask for as many classes as the table has rows, in their order"),
        Some(TableError::Ambiguous { name, .. }) => Problem::new(
            Code::BadClasses,
            format!("the table of class embeddings has several rows for {name:?}"),
        )
        .with_hint(hint),
        Some(TableError::Named { .. }) => unreadable_file(),
        None => Problem::new(Code::BadClasses, format!("{error:#}")).with_hint(hint),
    }
}

fn unreadable_file() -> Problem {
    Problem::new(
        Code::Internal,
        "a file of the model cannot be read any more",
    )
    .with_hint("whoever runs the server should start it again, which names the file")
}

fn of_image(error: &ImageError, max_pixels: u64) -> Problem {
    let detail = error.to_string();
    match error {
        ImageError::TooLarge { .. } | ImageError::Memory { .. } => {
            let hint =
                format!("send a smaller image; this server takes at most {max_pixels} pixels");
            Problem::new(Code::ImageTooLarge, detail).with_hint(hint)
        }
        _ => Problem::new(Code::UnreadableImage, detail)
            .with_hint("JPEG, PNG, WebP, BMP, TIFF, GIF, PNM and QOI files are read"),
    }
}

fn of_session(error: SessionError, name: &str) -> Problem {
    let detail = format!("{name}: {error}");
    match error {
        SessionError::Memory { .. } | SessionError::Model(ModelError::Memory { .. }) => {
            Problem::new(Code::ImageTooLarge, detail).with_hint("send a smaller image")
        }
        SessionError::Model(ModelError::Stopped) => stopped(),
        SessionError::Model(ModelError::Config(_)) => Problem::new(Code::BadValue, detail),
        _ => Problem::internal(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Output;

    #[test]
    fn ties_are_told_as_the_command_line_tells_them() {
        let notice = notice_of_tie("a.png", true).unwrap();
        assert!(notice.starts_with("a.png: all classes have the same score"));
        assert_eq!(notice_of_tie("a.png", false), None);
    }

    #[test]
    fn an_overlay_that_no_memory_holds_is_refused_before_it_is_drawn() {
        let mut options = SegmentOptions::default();
        let size = [1 << 22, 1 << 22];
        check_overlay(&options, size).unwrap();
        options.outputs.push(Output::Overlay);
        let problem = check_overlay(&options, size).unwrap_err();
        assert_eq!(problem.code(), Code::ImageTooLarge);
        check_overlay(&options, [64, 64]).unwrap();
    }
}
