//! Finished images of `zeg segment`: what the journal of the output folder knows, and which images are still to do.

mod part;
mod plan;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::IgnoredAny};
use zeg::{
    Segmenter,
    explain::Explanation,
    export::{ExportFormat, Overwrite, StoredImage},
    model::weights::file_sha256,
    vocab::templates::TemplateSet,
};
use zeg_base::{fingerprint::Fingerprint, paths::path_text};

use super::{
    args::{SegmentOutput, SegmentSettings},
    inputs::Input,
    part::Part,
};
use crate::commands::{
    journal::{Continuation, Journal, ResultsError, Span, model_values, settings_of},
    model_file::resolve_model,
};

/// Name of the journal in the output folder.
pub(super) const JOURNAL: &str = ".zeg-segment.jsonl";

/// The result of an image as the journal keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FinishedImage {
    pub(super) stored: StoredImage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) regions: Option<Vec<Explanation>>,
    /// Whether all classes have the same score at every pixel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) tied: bool,
}

/// A file that was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WrittenFile {
    /// Path in the output folder.
    path: String,
    /// `None` before it is written.
    sha256: Option<String>,
}

/// An entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry<R> {
    /// The files of an image are about to be written.
    Begun {
        image: String,
        /// As [`Input::origin`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        files: Vec<WrittenFile>,
    },
    /// All files of an image are written.
    Done {
        image: String,
        /// As [`Input::origin`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        /// SHA-256 of the image.
        source: String,
        files: Vec<WrittenFile>,
        result: R,
    },
    /// The files that all images share are about to be written, or are written.
    Shared {
        files: Vec<WrittenFile>,
        /// Whether the run was stopped, so that they hold only some of the images.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        incomplete: bool,
    },
    /// The run is a part of a divided one.
    Part(Box<Part>),
}

/// What the journal says about an image.
#[derive(Debug)]
struct ImageState {
    /// Number of the settings.
    settings: usize,
    /// As [`Input::origin`]; `None` in journals of earlier versions.
    origin: Option<String>,
    files: Vec<WrittenFile>,
    /// Place of the result and digest of the image, if it is finished.
    done: Option<(Span, String)>,
}

/// What the journal says about a file that all images share.
#[derive(Debug)]
struct SharedState {
    /// Number of the settings.
    settings: usize,
    /// `None` before it is written.
    sha256: Option<String>,
    /// Whether it holds only some of the images.
    incomplete: bool,
}

/// A finished image of a part.
#[derive(Debug)]
pub(super) struct Done<'a> {
    /// Place of the result in the journal.
    pub(super) span: Span,
    /// As [`Input::origin`].
    pub(super) origin: Option<&'a str>,
    /// SHA-256 of the image.
    pub(super) source: &'a str,
    /// Its files, each with its path in the output folder and its SHA-256.
    pub(super) files: Vec<(&'a str, &'a str)>,
}

/// What a journal says about results.
#[derive(Debug, Default)]
struct Known {
    images: HashMap<String, ImageState>,
    /// By path.
    shared: HashMap<String, SharedState>,
    /// The part that the run is, with the number of its settings.
    part: Option<(usize, Box<Part>)>,
}

/// What is to be done with an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is finished; its result is in the journal.
    Keep(Span),
    /// It is segmented.
    Compute(Overwrite),
}

/// The finished images of an output folder, and the journal that new ones are added to.
#[derive(Debug)]
pub(super) struct Finished {
    journal: Journal,
    folder: PathBuf,
    images: HashMap<String, ImageState>,
    /// By path.
    shared: HashMap<String, SharedState>,
    /// Number of the present settings.
    settings: usize,
    present: Fingerprint,
}

/// Returns the paths of the files that all images share.
pub(super) fn shared_files(output: &SegmentOutput) -> Vec<PathBuf> {
    let names = output.kinds.iter().flat_map(|kind| kind.shared_files);
    names.map(|name| output.folder.join(name)).collect()
}

/// Returns the paths of the files that hold all images, which are those shared files that are no class lists.
pub(super) fn collected_files(output: &SegmentOutput) -> Vec<PathBuf> {
    let kinds = output.kinds.iter().filter(|kind| kind.is_shared());
    let names = kinds.flat_map(|kind| kind.shared_files);
    names.map(|name| output.folder.join(name)).collect()
}

/// Returns the files that the journal of a folder says were written, or were about to be written.
///
/// A line that cannot be read is passed over; opening the journal reports it.
pub(super) fn written_files(folder: &Path) -> HashSet<PathBuf> {
    /// A line with an entry.
    #[derive(Deserialize)]
    struct Line {
        entry: Entry<IgnoredAny>,
    }
    let Ok(journal) = File::open(folder.join(JOURNAL)) else {
        return HashSet::new();
    };
    let lines = BufReader::new(journal).lines().map_while(Result::ok);
    let entries = lines.filter_map(|line| serde_json::from_str::<Line>(&line).ok());
    let files = entries.flat_map(|line| match line.entry {
        Entry::Begun { files, .. } | Entry::Done { files, .. } | Entry::Shared { files, .. } => {
            files
        }
        Entry::Part(_) => Vec::new(),
    });
    files.map(|file| folder.join(file.path)).collect()
}

/// Returns the paths of the files that an image has for itself.
pub(super) fn own_files(
    kinds: &[&ExportFormat],
    folder: &Path,
    stem: &Path,
    classes: usize,
) -> Vec<PathBuf> {
    let files = kinds
        .iter()
        .flat_map(|kind| kind.own_files(folder, stem, classes));
    files.collect()
}

/// Whether anything is at a path, even a link that leads nowhere.
pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Checks that no result exists, unless it is to be replaced or kept; this needs neither the model nor the images.
///
/// # Errors
/// Returns [`ResultsError::Exist`].
pub(super) fn refuse_existing(
    settings: &SegmentSettings,
    stems: &[PathBuf],
) -> Result<(), ResultsError> {
    let output = &settings.output;
    if output.overwrite == Overwrite::Replace || output.continuation == Continuation::Resume {
        return Ok(());
    }
    let classes = settings.classes.len();
    let own = |stem: &PathBuf| own_files(&output.kinds, &output.folder, stem, classes);
    let mut all = shared_files(output)
        .into_iter()
        .chain(stems.iter().flat_map(own));
    all.find(|path| exists(path))
        .map_or(Ok(()), |path| Err(ResultsError::Exist(path)))
}

/// Returns everything that the results follow from, except for the images.
pub(super) fn result_settings(
    settings: &SegmentSettings,
    segmenter: &Segmenter,
) -> anyhow::Result<Fingerprint> {
    let file = resolve_model(&settings.model)?;
    let device = settings.compute.device.to_string();
    let templates = settings.templates.as_deref();
    let templates = templates.map(TemplateSet::by_name_or_file).transpose()?;
    let templates: Option<Vec<String>> = templates.map(|set| {
        let texts = set.templates().iter();
        texts.map(ToString::to_string).collect()
    });
    let output = &settings.output;
    Ok(settings_of(&serde_json::json!({
        "command": "segment",
        "program": concat!("zeg ", env!("CARGO_PKG_VERSION")),
        "model": model_values(&file, segmenter.model(), &settings.model_settings, &device)?,
        "classes": settings.classes,
        "examples": segmenter.examples().map(zeg::examples::ExampleSet::digest),
        "templates": templates,
        "inference": segmenter.inference(),
        "test_time": segmenter.test_time(),
        "explain": settings.explain.map(|options| options.candidates),
        "min_area": output.minimal_area,
        "absorbed_area": output.absorbed_area,
        "opacity": output.opacity,
        "label_studio_prefix": output.label_studio_prefix,
    })))
}

impl Finished {
    /// Opens the journal of the output folder and states the present settings.
    ///
    /// # Errors
    /// As for [`Journal::open`].
    pub(super) fn open(folder: &Path, present: &Fingerprint) -> anyhow::Result<Self> {
        let (mut journal, known) = open_journal(folder)?;
        let number = journal.begin(present)?;
        Ok(Self {
            journal,
            folder: folder.to_owned(),
            images: known.images,
            shared: known.shared,
            settings: number,
            present: present.clone(),
        })
    }

    /// Removes temporary files that killed runs left in the folders of the results.
    pub(super) fn remove_left_behind(&self, folders: &[PathBuf]) {
        self.journal.remove_left_behind(folders);
    }

    fn written<'a>(&self, state: &'a ImageState, path: &Path) -> Option<&'a WrittenFile> {
        let name = self.name(path);
        state.files.iter().find(|file| file.path == name)
    }

    fn is_changed(&self, state: &ImageState, path: &Path) -> bool {
        let written = self
            .written(state, path)
            .and_then(|file| file.sha256.as_ref());
        written.is_some_and(|digest| file_sha256(path).ok().as_ref() != Some(digest))
    }

    /// Returns the path of a file in the output folder as text.
    fn name(&self, path: &Path) -> String {
        path_text(path.strip_prefix(&self.folder).unwrap_or(path))
    }

    /// States that the files of an image are about to be written.
    pub(super) fn begin_image(
        &self,
        input: &Input,
        stem: &Path,
        own: &[PathBuf],
    ) -> anyhow::Result<()> {
        self.journal.append(&Entry::<()>::Begun {
            image: path_text(stem),
            origin: Some(input.origin()),
            files: own.iter().map(|path| self.file(path, None)).collect(),
        })
    }

    /// States that an image is finished, and keeps its result.
    ///
    /// - `source`: SHA-256 of the image
    pub(super) fn finish_image(
        &self,
        input: &Input,
        stem: &Path,
        source: String,
        own: &[PathBuf],
        result: &FinishedImage,
    ) -> anyhow::Result<()> {
        self.journal.append(&Entry::Done {
            image: path_text(stem),
            origin: Some(input.origin()),
            source,
            files: self.digests(own)?,
            result,
        })
    }

    /// Removes the files that an earlier run wrote for an image and this run does not, such as those of further classes.
    ///
    /// Only files of this run's formats that have not been changed are removed; what cannot be removed stays.
    pub(super) fn remove_stale(&self, kinds: &[&ExportFormat], stem: &Path, own: &[PathBuf]) {
        let Some(state) = self.images.get(&path_text(stem)) else {
            return;
        };
        // A format that writes a file for every class wrote at most so many.
        let possible = own_files(kinds, &self.folder, stem, state.files.len());
        for path in possible.iter().filter(|path| !own.contains(path)) {
            let written = self.written(state, path);
            let is_complete = written.is_some_and(|file| file.sha256.is_some());
            let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
            if is_complete && is_file && !self.is_changed(state, path) {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// States that the shared files are about to be written.
    pub(super) fn begin_shared(&self, files: &[PathBuf]) -> anyhow::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.journal.append(&Entry::<()>::Shared {
            files: files.iter().map(|path| self.file(path, None)).collect(),
            incomplete: false,
        })
    }

    /// States that the shared files are written.
    ///
    /// - `incomplete`: whether they hold only some of the images
    pub(super) fn finish_shared(&self, files: &[PathBuf], incomplete: bool) -> anyhow::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        self.journal.append(&Entry::<()>::Shared {
            files: self.digests(files)?,
            incomplete,
        })
    }

    /// Whether files with only some of the images replace no whole ones: each is missing, or is what a stopped run has
    /// left.
    pub(super) fn may_be_incomplete(&self, files: &[PathBuf]) -> bool {
        let is_left_by_a_stop = |path: &PathBuf| {
            let state = self.shared.get(&self.name(path));
            let digest = state.filter(|state| state.incomplete);
            let digest = digest.and_then(|state| state.sha256.as_ref());
            digest.is_some_and(|digest| file_sha256(path).ok().as_ref() == Some(digest))
        };
        files
            .iter()
            .all(|path| !exists(path) || is_left_by_a_stop(path))
    }

    /// Reads the result of a finished image.
    pub(super) fn read(&self, span: Span) -> anyhow::Result<FinishedImage> {
        match self.journal.read::<Entry<FinishedImage>>(span)? {
            Entry::Done { result, .. } => Ok(result),
            Entry::Begun { .. } | Entry::Shared { .. } | Entry::Part(_) => {
                anyhow::bail!(
                    "{}: an entry has changed",
                    self.folder.join(JOURNAL).display()
                )
            }
        }
    }

    fn file(&self, path: &Path, sha256: Option<String>) -> WrittenFile {
        WrittenFile {
            path: self.name(path),
            sha256,
        }
    }

    /// Returns files with their digests; an overlay that was not drawn is left out.
    fn digests(&self, files: &[PathBuf]) -> anyhow::Result<Vec<WrittenFile>> {
        let written = files.iter().filter(|path| exists(path));
        written
            .map(|path| Ok(self.file(path, Some(file_sha256(path)?))))
            .collect()
    }
}

/// Opens the journal of a folder and reads what it says.
fn open_journal(folder: &Path) -> anyhow::Result<(Journal, Known)> {
    let mut known = Known::default();
    let journal = Journal::open(
        &folder.join(JOURNAL),
        |settings, span, entry: Entry<IgnoredAny>| known.take(settings, span, entry),
    )?;
    Ok((journal, known))
}

impl Known {
    /// Takes an entry of the journal.
    ///
    /// - `settings`: number of its settings
    /// - `span`: its place
    fn take(&mut self, settings: usize, span: Span, entry: Entry<IgnoredAny>) {
        match entry {
            Entry::Begun {
                image,
                origin,
                files,
            } => {
                let state = ImageState {
                    settings,
                    origin,
                    files,
                    done: None,
                };
                self.images.insert(image, state);
            }
            Entry::Done {
                image,
                origin,
                source,
                files,
                ..
            } => {
                let state = ImageState {
                    settings,
                    origin,
                    files,
                    done: Some((span, source)),
                };
                self.images.insert(image, state);
            }
            Entry::Shared { files, incomplete } => {
                let state = |sha256| SharedState {
                    settings,
                    sha256,
                    incomplete,
                };
                let files = files.into_iter();
                self.shared
                    .extend(files.map(|file| (file.path, state(file.sha256))));
            }
            Entry::Part(part) => self.part = Some((settings, part)),
        }
    }
}
