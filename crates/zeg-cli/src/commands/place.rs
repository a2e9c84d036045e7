//! What stands at the path of an output file, and what may be done with it: one rule for every command.
//!
//! A pipe or a device is never replaced by a file. A file behind a symbolic link is replaced, and the link stays.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::builder::{PathBufValueParser, TypedValueParser};
use zeg_base::file::Overwrite;

/// Returns the parser of an option that names a folder for files; for `-` there would be a folder of this name.
pub(crate) fn output_folder() -> impl TypedValueParser<Value = PathBuf> {
    named_output("this command writes files; name a folder")
}

/// Returns the parser of an option that names a file to write, which is never standard output.
pub(crate) fn output_file() -> impl TypedValueParser<Value = PathBuf> {
    named_output("this command writes a file; name it")
}

/// - `refusal`: error for `-`, which stands for standard output in other commands
fn named_output(refusal: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| {
        if path.as_os_str() == "-" {
            Err(refusal)
        } else {
            Ok(path)
        }
    })
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing; a file can be made here.
    Free,
    /// A file, with its path behind all symbolic links.
    File(PathBuf),
    /// A folder, or a link to one.
    Folder,
    /// A pipe or a device that can be written into.
    Stream,
    /// Something else, such as a socket or a disk.
    Other,
    /// A symbolic link to a file that does not exist.
    DeadLink,
}

impl Place {
    /// Returns what stands at a path.
    ///
    /// # Errors
    /// Returns the system's error if the path cannot be examined.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link has metadata of its own even if it leads nowhere.
                return Ok(match fs::symlink_metadata(path) {
                    Ok(_) => Self::DeadLink,
                    Err(_) => Self::Free,
                });
            }
            Err(error) => return Err(error),
        };
        Ok(if found.is_dir() {
            Self::Folder
        } else if found.is_file() {
            Self::File(path.canonicalize()?)
        } else if is_stream(&found) {
            Self::Stream
        } else {
            Self::Other
        })
    }
}

#[cfg(unix)]
fn is_stream(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = found.file_type();
    kind.is_fifo() || kind.is_char_device()
}

#[cfg(not(unix))]
fn is_stream(_found: &fs::Metadata) -> bool {
    false
}

/// Something at the path of an output file that a file must not replace.
#[derive(Debug, thiserror::Error)]
#[error("{}: not a file, so it is not replaced", path.display())]
pub(crate) struct NotAFile {
    path: PathBuf,
}

/// Something at the path of an output folder, such as a link, that is not removed.
#[derive(Debug, thiserror::Error)]
#[error("{}: not a folder, so it is not removed", path.display())]
pub(crate) struct NotAFolder {
    path: PathBuf,
}

/// The error for an output file that exists already.
#[derive(Debug, thiserror::Error)]
#[error("{}: the file exists already", .0.display())]
pub(crate) struct OutputExists(pub(crate) PathBuf);

/// What happens to an output file that exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Replace,
}

impl Existing {
    /// Returns what `--overwrite` means.
    pub(crate) fn of_flag(overwrite: bool) -> Self {
        if overwrite {
            Self::Replace
        } else {
            Self::Refuse
        }
    }

    /// Checks that nothing stands at a path, unless it may be replaced.
    ///
    /// # Errors
    /// As for [`Existing::place`].
    pub(crate) fn check(self, path: &Path) -> anyhow::Result<()> {
        // A command that replaces files in a folder asks for the folder.
        if path.is_dir() {
            return match self {
                Self::Refuse => Err(OutputExists(path.to_owned()).into()),
                Self::Replace => Ok(()),
            };
        }
        self.place(path).map(|_| ())
    }

    /// Checks that a folder may be removed with all its content.
    ///
    /// # Errors
    /// Returns [`OutputExists`] if a folder stands at the path and must not be replaced, [`NotAFolder`] if something
    /// else does, even a link to a folder, and the system's error if the path cannot be examined.
    pub(crate) fn check_removal(self, folder: &Path) -> anyhow::Result<()> {
        let found = match fs::symlink_metadata(folder) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| folder.display().to_string()),
        };
        if !found.is_dir() {
            let path = folder.to_owned();
            return Err(NotAFolder { path }.into());
        }
        match self {
            Self::Refuse => Err(OutputExists(folder.to_owned()).into()),
            Self::Replace => Ok(()),
        }
    }

    /// Writes a file at a path, behind all symbolic links; it appears complete or not at all.
    ///
    /// # Errors
    /// As for [`Existing::place`], and the system's error with the path if the file cannot be written.
    pub(crate) fn write(self, path: &Path, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let overwrite = match self {
            Self::Refuse => Overwrite::Refuse,
            Self::Replace => Overwrite::Replace,
        };
        let written = zeg_base::file::write(&self.place(path)?, bytes, overwrite);
        written.with_context(|| path.display().to_string())
    }

    /// Returns the path that a file is written to: behind all symbolic links, so that they stay.
    ///
    /// # Errors
    /// Returns [`OutputExists`] if a file stands at the path and must not be replaced, [`NotAFile`] if something else
    /// does, and the system's error if the path cannot be examined.
    pub(crate) fn place(self, path: &Path) -> anyhow::Result<PathBuf> {
        match (
            self,
            Place::at(path).with_context(|| path.display().to_string())?,
        ) {
            (_, Place::Free) => Ok(path.to_owned()),
            (Self::Refuse, Place::File(_)) => Err(OutputExists(path.to_owned()).into()),
            (Self::Replace, Place::File(file)) => Ok(file),
            _ => Err(NotAFile {
                path: path.to_owned(),
            }
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_never_replaces_what_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        assert_eq!(Existing::Refuse.place(&file).unwrap(), file);
        fs::write(&file, "old").unwrap();
        let error = Existing::Refuse.place(&file).unwrap_err();
        assert!(error.is::<OutputExists>(), "{error}");
        assert!(Existing::Replace.place(&file).is_ok());
        // What --overwrite does not replace either is no reason to hint at it.
        for existing in [Existing::Refuse, Existing::Replace] {
            let error = existing.place(folder.path()).unwrap_err();
            assert!(error.is::<NotAFile>(), "{error}");
        }
        assert!(Existing::Replace.check(folder.path()).is_ok());
        let error = Existing::Refuse.check(folder.path()).unwrap_err();
        assert!(error.is::<OutputExists>(), "{error}");
    }

    #[test]
    fn a_dash_names_no_output() {
        for command in [
            &["eval", "-o", "-"][..],
            &["eval", "--write-labels", "-"],
            &["eval", "merge", "-o", "-"],
            &["report", "-o", "-"],
            &["train", "-o", "-"],
            &["ablate", "-o", "-"],
            &["visualize", "-o", "-"],
            &["import", "-o", "-"],
            &["pretrain", "-o", "-"],
            &["data", "prepare", "-o", "-"],
            &["quickstart", "-o", "-"],
        ] {
            let typed = std::iter::once(&"zeg").chain(command);
            let error = crate::command().try_get_matches_from(typed).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("; name "), "{command:?}: {text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_where_they_are() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        symlink(&file, &link).unwrap();
        for existing in [Existing::Refuse, Existing::Replace] {
            assert!(existing.place(&link).is_err(), "{existing:?}");
            let error = existing.place(Path::new("/dev/null")).unwrap_err();
            assert!(error.is::<NotAFile>(), "{error}");
        }
        fs::write(&file, "old").unwrap();
        assert!(Existing::Refuse.place(&link).is_err());
        let found = Existing::Replace.place(&link).unwrap();
        assert_eq!(found, file.canonicalize().unwrap());
        Existing::Replace.write(&link, "new").unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_a_folder_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (made, link) = (folder.path().join("made"), folder.path().join("link"));
        assert!(Existing::Refuse.check_removal(&made).is_ok());
        fs::create_dir(&made).unwrap();
        std::os::unix::fs::symlink(&made, &link).unwrap();
        let error = Existing::Refuse.check_removal(&made).unwrap_err();
        assert!(error.is::<OutputExists>(), "{error}");
        assert!(Existing::Replace.check_removal(&made).is_ok());
        for existing in [Existing::Refuse, Existing::Replace] {
            let error = existing.check_removal(&link).unwrap_err();
            assert!(error.is::<NotAFolder>(), "{error}");
        }
    }
}
