//! Results as JSON: one flag, one form of document and one rule for files, for every command.
//!
//! A document is an object. Its first keys are `schema_version` and `command`; the result's own fields follow. A command
//! that fails leaves a document with the key `error` in place of the result. There is one document a run.

mod failure;
#[cfg(feature = "schema")]
mod schema;

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize, de::IgnoredAny};

pub(crate) use self::failure::{Failure, asked_for, report, report_usage, stopped};
#[cfg(feature = "schema")]
pub(crate) use self::schema::{error_schema, schema_of};
use super::{journal::check_writable, place::Place, shared::heading};
use crate::{
    host,
    say::{self, StdoutError, unless_closed},
};

/// Version of the form of all documents; it grows when a field changes its name or its meaning.
const SCHEMA_VERSION: u32 = 1;

/// The flag `--json`.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Write the result as JSON to FILE; without FILE or with `-`, to standard output instead of the text
    #[arg(
        long,
        value_name = "FILE|-",
        num_args = 0..=1,
        default_missing_value = "-",
        help_heading = heading::OUTPUT
    )]
    json: Option<PathBuf>,
}

impl JsonArgs {
    /// Returns where the JSON of a command goes, if it is asked for.
    ///
    /// - `command`: path of the command, such as `data doctor`
    ///
    /// # Errors
    /// Returns an error if the file may not or cannot be written; commands ask before they start to work.
    pub(crate) fn target(self, command: &'static str) -> anyhow::Result<Option<JsonTarget>> {
        let target = self
            .json
            .map(|path| JsonTarget::new(command.to_owned(), path));
        if let Some(JsonTarget {
            place: JsonPlace::File(path),
            ..
        }) = &target
            && let Writing::Whole(file) = check_place(path, command)?
        {
            let checked = check_writable(file.parent().unwrap_or(Path::new("")));
            checked.with_context(|| format!("--json {}", path.display()))?;
        }
        Ok(target)
    }
}

/// Where a command's JSON document goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonTarget {
    /// Path of the command, such as `data doctor`.
    command: String,
    place: JsonPlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum JsonPlace {
    Stdout,
    /// The program that has called the command.
    Host,
    File(PathBuf),
}

/// A document: the result's fields behind those that every document has.
#[derive(Debug, Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    command: &'a str,
    #[serde(flatten)]
    result: &'a T,
}

impl JsonTarget {
    /// Returns the target that a value of `--json` names: standard output for `-`.
    fn new(command: String, path: PathBuf) -> Self {
        // The same file opened twice would write over the text of the other.
        let is_stdout = [Path::new("-"), Path::new("/dev/stdout")].contains(&path.as_path());
        let place = if is_stdout && host::is_called() {
            JsonPlace::Host
        } else if is_stdout {
            JsonPlace::Stdout
        } else {
            JsonPlace::File(path)
        };
        Self { command, place }
    }

    /// Whether the document takes the place of the text on standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.place, JsonPlace::Stdout | JsonPlace::Host)
    }

    /// Returns the file that the document goes to, if it goes to a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.place {
            JsonPlace::File(path) => Some(path),
            JsonPlace::Stdout | JsonPlace::Host => None,
        }
    }

    /// Writes a result as a document; a closed pipe is no error.
    ///
    /// - `result`: a struct or a map
    pub(crate) fn write(&self, result: &impl Serialize) -> anyhow::Result<()> {
        let document = Document {
            schema_version: SCHEMA_VERSION,
            command: &self.command,
            result,
        };
        if self.place == JsonPlace::Host {
            host::take_document(serde_json::to_value(&document)?);
            return Ok(());
        }
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        match &self.place {
            JsonPlace::Stdout | JsonPlace::Host => Ok(say::result_text(text.as_bytes())?),
            JsonPlace::File(path) => write_to_file(path, &self.command, &text),
        }
    }
}

/// Writes a result as JSON if that is asked for, and as text unless the JSON goes to standard output.
pub(crate) fn write_result(
    json: Option<&JsonTarget>,
    result: &impl Serialize,
    print: impl FnOnce() -> Result<(), StdoutError>,
) -> anyhow::Result<()> {
    if let Some(target) = json {
        target.write(result)?;
    }
    if !json.is_some_and(JsonTarget::is_stdout) {
        print()?;
    }
    Ok(())
}

/// Writes a document to a file, by the rule of [`check_place`].
fn write_to_file(path: &Path, command: &str, text: &str) -> anyhow::Result<()> {
    match check_place(path, command)? {
        Writing::Whole(file) => {
            let made = zeg_base::file::make_folder_of(&file);
            let replace = zeg_base::file::Overwrite::Replace;
            let written = made.and_then(|()| zeg_base::file::write(&file, text, replace));
            written.with_context(|| format!("--json {}: cannot be written", path.display()))
        }
        Writing::Stream => {
            let written = File::options()
                .write(true)
                .open(path)
                .and_then(|mut file| file.write_all(text.as_bytes()));
            unless_closed(written).with_context(|| path.display().to_string())
        }
    }
}

/// How a document gets to its file.
#[derive(Debug, PartialEq, Eq)]
enum Writing {
    /// The file appears whole, or is replaced; this is its path behind all symbolic links.
    Whole(PathBuf),
    /// The document is written into a pipe or a device.
    Stream,
}

/// Decides how a document may be written to a path.
///
/// A pipe or a device is written into, never replaced. A file behind a symbolic link is replaced, and the link stays.
/// An empty file, or an earlier document of the same command, is replaced; every other file stays as it is: in
/// `zeg segment --json photo.jpg` the photo is the flag's value.
///
/// - `command`: path of the command, such as `data doctor`
///
/// # Errors
/// Returns a [`JsonRefused`] if something else stands at the path, or the system's error if it cannot be read.
fn check_place(path: &Path, command: &str) -> anyhow::Result<Writing> {
    let refused = |reason| {
        Err(JsonRefused {
            path: path.to_owned(),
            reason,
        }
        .into())
    };
    let name = || path.display().to_string();
    let file = match Place::at(path).with_context(name)? {
        Place::Free => return Ok(Writing::Whole(path.to_owned())),
        Place::File(file) => file,
        Place::Stream => return Ok(Writing::Stream),
        Place::Folder => return refused(Reason::Folder),
        Place::Other => return refused(Reason::NoFile),
        Place::DeadLink => return refused(Reason::DeadLink),
    };
    if !may_be_replaced(path, command).with_context(name)? {
        return refused(Reason::NoDocument);
    }
    Ok(Writing::Whole(file))
}

/// The first fields of a document; the others are passed over.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(rename = "schema_version")]
    _version: IgnoredAny,
    command: String,
}

/// Whether a file is empty or an earlier document of a command.
fn may_be_replaced(path: &Path, command: &str) -> io::Result<bool> {
    let mut reader = BufReader::new(File::open(path)?);
    let first = reader
        .by_ref()
        .bytes()
        .find(|byte| !byte.as_ref().is_ok_and(u8::is_ascii_whitespace));
    match first.transpose()? {
        None => Ok(true),
        Some(b'{') => {
            reader.rewind()?;
            let head = serde_json::from_reader::<_, Head>(reader);
            Ok(head.is_ok_and(|head| head.command == command))
        }
        Some(_) => Ok(false),
    }
}

/// Something that `--json` must not replace.
#[derive(Debug, thiserror::Error)]
#[error("--json {}: {reason}", path.display())]
pub(crate) struct JsonRefused {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("the file exists and is no earlier result of this command; it is not replaced")]
    NoDocument,
    #[error("a folder, not a file")]
    Folder,
    #[error("neither a file nor a pipe")]
    NoFile,
    #[error("a symbolic link to a file that does not exist")]
    DeadLink,
}

impl JsonRefused {
    pub(crate) fn hint(&self) -> &'static str {
        match self.reason {
            Reason::NoDocument => {
                "write --json=FILE with a new file for the JSON, or put --json last to print the JSON"
            }
            Reason::Folder | Reason::NoFile | Reason::DeadLink => {
                "write --json=FILE with the file for the JSON, or --json=- to print the JSON"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn target(path: &Path) -> JsonTarget {
        JsonTarget::new("data doctor".to_owned(), path.to_owned())
    }

    fn reason(path: &Path) -> Reason {
        let error = target(path).write(&json!({})).unwrap_err();
        error.downcast::<JsonRefused>().unwrap().reason
    }

    #[test]
    fn a_document_begins_with_version_and_command() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/report.json");
        target(&path).write(&json!({ "splits": [1] })).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let head = "{\n  \"schema_version\": 1,\n  \"command\": \"data doctor\",\n  \"splits\": [";
        assert!(text.starts_with(head), "{text}");
    }

    #[test]
    fn only_documents_of_the_same_command_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let documents = [
            r#"{"schema_version": 1, "command": "data doctor", "splits": []}"#,
            r#"{"schema_version": 2, "command": "data doctor", "error": {}}"#,
        ];
        for old in ["", " \n"].iter().chain(&documents) {
            fs::write(&path, old).unwrap();
            target(&path).write(&json!({})).unwrap();
            assert_ne!(fs::read_to_string(&path).unwrap(), *old);
        }
        for old in [
            "\u{fffd}photo",
            "[data]\ndataset = 1\n",
            "{}",
            "1",
            "[1, \"data doctor\"]",
            r#"{"hidden_size": 768, "vision_config": {}}"#,
            r#"{"command": "data doctor"}"#,
            r#"{"schema_version": 1, "command": "eval"}"#,
            "{\"schema_version\": 1, \"command\": \"data doctor\"}\n{}\n",
        ] {
            fs::write(&path, old).unwrap();
            assert_eq!(reason(&path), Reason::NoDocument, "{old}");
            assert_eq!(fs::read_to_string(&path).unwrap(), old);
        }
        assert_eq!(reason(folder.path()), Reason::Folder);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay() {
        use std::os::unix::fs::{FileTypeExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).unwrap();
        assert_eq!(reason(&link), Reason::DeadLink);
        // A folder that cannot be written into is found before the work.
        let json = Some(link.join("result.json"));
        let error = JsonArgs { json }.target("eval").unwrap_err();
        assert!(error.to_string().starts_with("--json "), "{error}");
        fs::write(&file, "").unwrap();
        target(&link).write(&json!({})).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&file).unwrap().contains("data doctor"));

        let null = Path::new("/dev/null");
        target(null).write(&json!({})).unwrap();
        let kind = fs::metadata(null).unwrap().file_type();
        assert!(kind.is_char_device());
    }
}
