//! Journal of long work: what is finished, so that a command that was stopped can go on.
//!
//! The journal is a hidden file beside the results, with one JSON object per line. A line with the settings stands
//! before the entries that were made with them, so that results of other settings are recognised. The file is locked
//! while a process writes into it. A line that a crash cut off is dropped.

use std::{
    fs::{File, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::Value;
use zeg::{
    loading::LoadedModel,
    mini::weights_sha256,
    model::weights::{Architecture, file_sha256},
};
use zeg_base::fingerprint::{Difference, Fingerprint};

use super::shared::{Existing, ModelSettings};

/// Number of settings that a message shows.
const SHOWN: usize = 3;

/// Whether a command goes on with what an earlier run has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// It starts anew.
    Fresh,
    /// It keeps what is finished.
    Resume,
}

impl Continuation {
    /// Returns what `--resume` means.
    pub(crate) fn of_flag(resume: bool) -> Self {
        if resume { Self::Resume } else { Self::Fresh }
    }
}

/// Results that stand in the way of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultsError {
    /// A result exists, and the command was not asked to go on or to replace it.
    #[error("{}: exists already", .0.display())]
    Exist(PathBuf),
    /// An unfinished piece of work is there, and the command was not asked to go on or to start anew.
    #[error("{}: holds finished images of an earlier run", .0.display())]
    Unfinished(PathBuf),
    /// A result exists that no journal describes.
    #[error("{}: exists already, and no journal says with which settings it was made", .0.display())]
    Unknown(PathBuf),
    /// A result was made from another image, whose name is the same without its folder and extension.
    #[error("{}: belongs to another image, {image}", path.display())]
    OtherImage {
        /// The result.
        path: PathBuf,
        /// The image that it was made from.
        image: String,
    },
    /// The files that all images share hold an image that the command does not have.
    #[error(
        "{}: holds results of {image}, which is not among the images now, and the files that all images share would lose it",
        folder.display()
    )]
    ImageLeftOut {
        /// The folder of the results.
        folder: PathBuf,
        /// Path of the image's results in the folder, without an extension.
        image: String,
    },
    /// A result was made with other settings.
    #[error("{}: was made with other settings: {difference}", path.display())]
    OtherSettings {
        path: PathBuf,
        /// The first settings that differ, with both values.
        difference: String,
    },
    /// A result is no longer what the journal describes.
    #[error("{}: was changed after it was written", .0.display())]
    Changed(PathBuf),
    /// A label map of a complete evaluation is not there.
    #[error("{}: the label map is missing, although the record is complete", .0.display())]
    NoLabelMap(PathBuf),
    /// Another process works on the same results.
    #[error("{}: another process is writing into this folder", .0.display())]
    InUse(PathBuf),
    /// The journal has lines of an unknown form.
    #[error("{}: the journal was written by another version of this program", .0.display())]
    OtherVersion(PathBuf),
    /// A file of the user has the name of the journal.
    #[error("{}: the file is no journal of this program, so it is not changed", .0.display())]
    NoJournal(PathBuf),
}

impl ResultsError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Exist(_) => {
                "--resume keeps what is finished and computes the rest; --overwrite computes everything again; -o names another folder"
            }
            Self::OtherImage { .. } => {
                "choose another folder with -o, or replace the result with --overwrite"
            }
            Self::ImageLeftOut { .. } => {
                "name all images of the earlier run, or choose another folder with -o; --overwrite writes the shared files with the images named now"
            }
            Self::Unfinished(_) => "go on with --resume, or start anew with --overwrite",
            Self::Unknown(_) | Self::OtherSettings { .. } => {
                "results of different settings are not mixed; compute everything again with --overwrite, or choose another folder with -o"
            }
            Self::Changed(_) => {
                "move the file away to keep it, or use --overwrite to compute everything again"
            }
            // The journal is read with --overwrite as well.
            Self::OtherVersion(_) | Self::NoJournal(_) => {
                "move the file away, or choose another folder with -o"
            }
            Self::NoLabelMap(_) => {
                "label maps do not follow from a record; compute both again with --overwrite, or leave --write-labels out"
            }
            Self::InUse(_) => "wait for the other process, or choose another folder with -o",
        }
    }
}

/// Returns the settings that results follow from as the parts of a fingerprint.
///
/// Objects are taken apart, as `inference.crop`. A list is one part, and `null` is left out.
pub(crate) fn settings_of(values: &Value) -> Fingerprint {
    fn add(parts: Fingerprint, name: &str, value: &Value) -> Fingerprint {
        match value {
            Value::Null => parts,
            Value::Object(fields) => fields.iter().fold(parts, |parts, (key, value)| {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}.{key}")
                };
                add(parts, &name, value)
            }),
            Value::String(text) => parts.with(name, text),
            value => parts.with(name, value),
        }
    }
    add(Fingerprint::new(), "", values)
}

/// Reads the settings of a line; an earlier version wrote their values beside a digest.
fn read_settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
    let line = Value::deserialize(deserializer)?;
    let earlier = line.get("values").filter(|values| values.is_object());
    Ok(settings_of(earlier.unwrap_or(&line)))
}

/// Returns everything of a model that its results follow from.
///
/// - `file`: file or folder of the model
/// - `device`: name of the device
pub(crate) fn model_values(
    file: &Path,
    model: &LoadedModel,
    settings: &ModelSettings,
    device: &str,
) -> anyhow::Result<Value> {
    let base = (model.base != file).then(|| weights_sha256(&model.base));
    let table = settings.text.as_deref().map(file_sha256).transpose()?;
    let row_classes = settings.text_classes.as_ref();
    // The name of the method stands in the model; it has other results with other options.
    let options = settings.method.as_ref().map(|choice| &choice.options);
    let options = options.filter(|options| !options.is_empty());
    Ok(serde_json::json!({
        "sha256": weights_sha256(file)?,
        "frozen_sha256": base.transpose()?,
        "table_sha256": table,
        "table_classes": row_classes.map(serde_json::to_value).transpose()?,
        "activation": Architecture::stated_activation(&model.weights)?,
        "heads": Architecture::stated_heads(&model.weights)?,
        "method": model.method,
        "method_options": options.map(serde_json::to_string).transpose()?,
        "precision": model.precision.to_string(),
        "device": device,
    }))
}

/// Checks that files can be made in a folder, or in the nearest folder above it that exists.
///
/// # Errors
/// Returns the system's error with the path; commands ask before they start to work.
pub(crate) fn check_writable(folder: &Path) -> anyhow::Result<()> {
    let exists = |path: &&Path| path.as_os_str().is_empty() || path.symlink_metadata().is_ok();
    let nearest = folder.ancestors().find(exists).unwrap_or(Path::new(""));
    let nearest = if nearest.as_os_str().is_empty() {
        Path::new(".")
    } else {
        nearest
    };
    let name = || nearest.display().to_string();
    if let Some(target) = zeg_base::file::dead_link(nearest) {
        anyhow::bail!(
            "{}: a link to {}, which does not exist",
            nearest.display(),
            target.display()
        );
    }
    anyhow::ensure!(
        std::fs::metadata(nearest).with_context(name)?.is_dir(),
        "{}: not a folder",
        nearest.display()
    );
    // The file has no name on most systems, so that nothing is left of it.
    let probe = tempfile::tempfile_in(nearest).map_err(|error| error_of_system(&error));
    probe.with_context(|| format!("{}: cannot be written into", name()))?;
    Ok(())
}

/// Returns the error of the system without the path of a temporary file.
fn error_of_system(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

/// One line of a journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<E> {
    /// Settings of the entries that follow.
    Settings(#[serde(deserialize_with = "read_settings")] Fingerprint),
    /// Number of a process that writes into the folder from now on.
    Process(u32),
    Entry(E),
}

/// Beginnings of the lines of a journal, the forms of [`Line`].
const BEGINNINGS: [&[u8]; 3] = [b"{\"process\":", b"{\"settings\":", b"{\"entry\":"];

/// Whether a line may be the first of a journal, cut off by a crash or not.
fn begins_as_journal(line: &[u8]) -> bool {
    let is_empty = line.iter().all(|&byte| byte == 0); // a crash can leave a length without its bytes
    let begins = |known: &&[u8]| line.starts_with(known) || known.starts_with(line);
    is_empty || BEGINNINGS.iter().any(begins)
}

/// Place of an entry in the file of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u64,
    length: usize,
}

/// A journal that this process writes.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Mutex<File>,
    path: PathBuf,
    /// All settings in the file; entries name them by their number.
    settings: Vec<Fingerprint>,
    /// Number of the settings of the last line.
    last: Option<usize>,
    /// Numbers of the processes that wrote into the folder before, all of which have ended.
    earlier: Vec<u32>,
}

impl Journal {
    /// Opens a journal and reads its entries; creates the file, and its folder, if there is none.
    ///
    /// - `each`: receives the number of an entry's settings, the entry's place, and the entry
    ///
    /// # Errors
    /// Returns [`ResultsError::InUse`] if another process writes into the journal, [`ResultsError::OtherVersion`],
    /// [`ResultsError::NoJournal`], or the system's error with the path.
    pub(crate) fn open<E: DeserializeOwned>(
        path: &Path,
        mut each: impl FnMut(usize, Span, E),
    ) -> anyhow::Result<Self> {
        let path = Existing::Replace.place(path)?;
        let name = || path.display().to_string();
        zeg_base::file::make_folder_of(&path).with_context(name)?;
        let mut options = File::options();
        let file = options.read(true).append(true).create(true).open(&path);
        let mut file = file.with_context(name)?;
        // A file system without locks does not keep anybody from working.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let folder = path.parent().unwrap_or(&path);
            return Err(ResultsError::InUse(folder.to_owned()).into());
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(name)?;
        let mut journal = Self {
            file: Mutex::new(file),
            path: path.clone(),
            settings: Vec::new(),
            last: None,
            earlier: Vec::new(),
        };
        let mut start = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let is_whole = line.ends_with(b"\n");
            match serde_json::from_slice::<Line<E>>(line) {
                Ok(Line::Settings(settings)) if is_whole => {
                    journal.last = Some(journal.number(settings));
                }
                Ok(Line::Process(number)) if is_whole => journal.earlier.push(number),
                Ok(Line::Entry(entry)) if is_whole => {
                    let length = line.len();
                    let span = Span { start, length };
                    each(journal.last.unwrap_or(usize::MAX), span, entry);
                }
                Err(_) if is_whole && serde_json::from_slice::<IgnoredAny>(line).is_ok() => {
                    return Err(ResultsError::OtherVersion(path).into());
                }
                _ if start == 0 && !begins_as_journal(line) => {
                    return Err(ResultsError::NoJournal(path).into());
                }
                // What a crash cut off is computed again, and so is everything behind it.
                _ => {
                    journal.lock().set_len(start).with_context(name)?;
                    break;
                }
            }
            start += line.len() as u64;
        }
        Ok(journal)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of settings; equal ones have one number.
    fn number(&mut self, settings: Fingerprint) -> usize {
        self.find(&settings).unwrap_or_else(|| {
            self.settings.push(settings);
            self.settings.len() - 1
        })
    }

    /// Removes the temporary files that killed processes left in folders of results.
    ///
    /// The lock of the journal shows that these processes have ended.
    pub(crate) fn remove_left_behind(&self, folders: &[PathBuf]) {
        for folder in folders {
            zeg_base::file::remove_temporaries(folder, &self.earlier);
        }
    }

    /// States this process and the settings of the entries to come; returns the number of the settings.
    pub(crate) fn begin(&mut self, settings: &Fingerprint) -> anyhow::Result<usize> {
        self.write(&Line::<()>::Process(std::process::id()))?;
        let number = self.number(settings.clone());
        if self.last != Some(number) {
            self.write(&Line::<()>::Settings(settings.clone()))?;
            self.last = Some(number);
        }
        Ok(number)
    }

    /// Removes all entries and states the settings of those to come.
    pub(crate) fn restart(&mut self, settings: &Fingerprint) -> anyhow::Result<()> {
        let emptied = self.lock().set_len(0);
        emptied.with_context(|| self.path.display().to_string())?;
        self.settings.clear();
        self.last = None;
        self.begin(settings).map(drop)
    }

    /// Adds an entry; it is on the disk when this returns.
    pub(crate) fn append(&self, entry: &impl Serialize) -> anyhow::Result<()> {
        self.write(&Line::Entry(entry))
    }

    fn write(&self, line: &Line<impl Serialize>) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let mut file = self.lock();
        let length = file.metadata().map(|about| about.len());
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_data());
        if let (Err(_), Ok(length)) = (&written, length) {
            let _ = file.set_len(length); // a full disk leaves no half of a line
        }
        written.with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Reads an entry again.
    pub(crate) fn read<E: DeserializeOwned>(&self, span: Span) -> anyhow::Result<E> {
        let mut bytes = vec![0; span.length];
        let mut file = self.lock();
        let read = file
            .seek(SeekFrom::Start(span.start))
            .and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        let name = || self.path.display().to_string();
        read.with_context(name)?;
        match serde_json::from_slice::<Line<E>>(&bytes).with_context(name)? {
            Line::Entry(entry) => Ok(entry),
            Line::Settings(_) | Line::Process(_) => {
                anyhow::bail!("{}: an entry has changed", name())
            }
        }
    }

    /// Returns the number of settings that the journal holds; `None` for others.
    pub(crate) fn find(&self, settings: &Fingerprint) -> Option<usize> {
        self.settings.iter().position(|other| other == settings)
    }

    /// Returns the settings of a number.
    pub(crate) fn settings(&self, number: usize) -> Option<&Fingerprint> {
        self.settings.get(number)
    }

    /// Returns the error for a result that was made with other settings.
    ///
    /// - `then`: number of the settings that it was made with
    /// - `now`: the present settings
    pub(crate) fn other_settings(
        &self,
        path: &Path,
        then: usize,
        now: &Fingerprint,
    ) -> ResultsError {
        match self.settings.get(then) {
            Some(then) => ResultsError::OtherSettings {
                path: path.to_owned(),
                difference: difference(then, now),
            },
            None => ResultsError::Unknown(path.to_owned()),
        }
    }

    /// Replaces all entries by a last one, which says that the work is done.
    pub(crate) fn finish(self, last: &impl Serialize) -> anyhow::Result<()> {
        self.append(last)?;
        let settings = self.last.and_then(|number| self.settings.get(number));
        let mut text = String::new();
        if let Some(settings) = settings {
            text += &serde_json::to_string(&Line::<()>::Settings(settings.clone()))?;
            text.push('\n');
        }
        text += &serde_json::to_string(&Line::Entry(last))?;
        text.push('\n');
        // The long form says the same, so that a failure does no harm.
        let _ = zeg_base::file::write(&self.path, text, zeg_base::file::Overwrite::Replace);
        Ok(())
    }
}

/// Returns the first settings that differ, as `models[0].inference.crop was 512 and is 336`.
pub(crate) fn difference(then: &Fingerprint, now: &Fingerprint) -> String {
    let Err(mismatch) = then.check_all(now) else {
        return String::new();
    };
    let shown = |difference: &Difference| {
        let [then, now] = difference.shown();
        format!("{} was {then} and is {now}", difference.name)
    };
    let first = mismatch.differences.iter().take(SHOWN).map(shown);
    let first = first.collect::<Vec<_>>().join("; ");
    match mismatch.differences.len().saturating_sub(SHOWN) {
        0 => first,
        rest => format!("{first}; and {rest} more"),
    }
}

#[cfg(test)]
mod tests;
