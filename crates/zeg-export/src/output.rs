//! Output files, which appear when they are complete and replace existing files only on request.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use zeg_base::file::{self, NewFile, Overwrite};

use crate::ExportError;

/// A file that is being written; if a symbolic link leads to it, the link stays.
#[derive(Debug)]
pub(crate) struct Target {
    file: NewFile,
    /// The path that was asked for, which may be a link to the file.
    path: PathBuf,
}

impl Target {
    /// Creates a file, and its folder if there is none yet.
    pub(crate) fn create(path: &Path, overwrite: Overwrite) -> Result<Self, ExportError> {
        file::make_folder_of(path).map_err(ExportError::unwritable(path))?;
        let behind = file::behind_link(path, overwrite).map_err(ExportError::unwritable(path))?;
        let file = NewFile::create(&behind, overwrite).map_err(unwritten(path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Calls `write` with the file; an error names the file.
    pub(crate) fn fill<T>(
        &mut self,
        write: impl FnOnce(&mut NewFile) -> io::Result<T>,
    ) -> Result<T, ExportError> {
        write(&mut self.file).map_err(ExportError::unwritable(&self.path))
    }

    /// Moves the file to its final path and returns this path.
    pub(crate) fn finish(self) -> Result<PathBuf, ExportError> {
        self.file.finish().map_err(unwritten(&self.path))?;
        Ok(self.path)
    }
}

/// Returns the error of a file that may already exist.
fn unwritten(path: &Path) -> impl Fn(io::Error) -> ExportError {
    |error| match error.kind() {
        io::ErrorKind::AlreadyExists => ExportError::Exists { path: path.into() },
        _ => ExportError::unwritable(path)(error),
    }
}

/// A folder with output files for every image.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    overwrite: Overwrite,
    /// Names in use, so that no file of an image replaces that of another.
    taken: BTreeSet<PathBuf>,
    finished: Vec<PathBuf>,
}

impl Folder {
    /// Opens the folder `root`, and creates it if it does not exist.
    pub(crate) fn create(root: &Path, overwrite: Overwrite) -> Result<Self, ExportError> {
        if !root.as_os_str().is_empty() {
            fs::create_dir_all(root).map_err(ExportError::unwritable(root))?;
        }
        Ok(Self {
            root: root.into(),
            overwrite,
            taken: BTreeSet::new(),
            finished: Vec::new(),
        })
    }

    /// Creates the file `stem` + `suffix` in the folder.
    pub(crate) fn target(&mut self, stem: &Path, suffix: &str) -> Result<Target, ExportError> {
        let path = self.root.join(file_name(stem, suffix)?);
        if !self.taken.insert(path.clone()) {
            return Err(ExportError::DuplicateOutput { path });
        }
        Target::create(&path, self.overwrite)
    }

    /// Moves one of the folder's files to its final path.
    pub(crate) fn finish(&mut self, target: Target) -> Result<(), ExportError> {
        self.finished.push(target.finish()?);
        Ok(())
    }

    /// Returns the finished files in the order in which they were finished.
    pub(crate) fn into_files(self) -> Vec<PathBuf> {
        self.finished
    }
}

/// Returns `stem` followed by `suffix`, and keeps dots in `stem`; refuses a stem that leads out of the folder.
pub(crate) fn file_name(stem: &Path, suffix: &str) -> Result<PathBuf, ExportError> {
    let inside = stem
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !inside || stem.file_name().is_none() {
        return Err(ExportError::Stem { stem: stem.into() });
    }
    let mut name = stem.as_os_str().to_owned();
    name.push(suffix);
    Ok(name.into())
}

/// A temporary file that is written first and copied into the output later, after text that is known only at the end.
#[derive(Debug)]
pub(crate) struct Spool {
    file: io::BufWriter<fs::File>,
}

impl Spool {
    /// Creates an unnamed file, which the system removes by itself.
    pub(crate) fn create() -> io::Result<Self> {
        let file = io::BufWriter::new(file::unnamed()?);
        Ok(Self { file })
    }

    /// Copies everything written so far to `target`.
    pub(crate) fn copy_to(self, target: &mut impl Write) -> io::Result<()> {
        let written = self.file.into_inner().map_err(io::Error::from);
        let mut file = written.map_err(|error| file::temporary_error(&error))?;
        io::Seek::rewind(&mut file)?;
        io::copy(&mut file, target)?;
        Ok(())
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        written.map_err(|error| file::temporary_error(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        flushed.map_err(|error| file::temporary_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder_and_keep_their_dots() {
        let name = |stem: &str| file_name(Path::new(stem), ".json").ok();
        assert_eq!(name("a.b"), Some("a.b.json".into()));
        assert_eq!(name("street/7"), Some("street/7.json".into()));
        for bad in ["", "..", "../a", "a/../b", "/a", "."] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn two_images_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Folder::create(folder.path(), Overwrite::Replace).unwrap();
        let first = files.target(Path::new("a"), ".json").unwrap();
        files.finish(first).unwrap();
        let second = files.target(Path::new("a"), ".json").unwrap_err();
        assert!(matches!(second, ExportError::DuplicateOutput { .. }));
        assert_eq!(files.into_files(), [folder.path().join("a.json")]);
    }

    #[test]
    fn a_file_that_exists_is_refused_before_and_after_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.json");
        let early = Target::create(&path, Overwrite::Refuse).unwrap();
        fs::write(&path, "mine").unwrap();
        let late = Target::create(&path, Overwrite::Refuse).unwrap_err();
        assert!(matches!(late, ExportError::Exists { .. }));
        assert!(matches!(early.finish(), Err(ExportError::Exists { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let replacing = Target::create(&path, Overwrite::Replace).unwrap();
        replacing.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
    #[cfg(unix)]
    #[test]
    fn a_link_is_written_through_and_a_dead_link_is_refused() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (
            folder.path().join("coco.json"),
            folder.path().join("shared"),
        );
        symlink(&file, &link).unwrap();
        let dead = Target::create(&link, Overwrite::Replace).unwrap_err();
        assert!(matches!(dead, ExportError::Unwritable { .. }), "{dead}");
        fs::write(&file, "old").unwrap();
        let refused = Target::create(&link, Overwrite::Refuse).unwrap_err();
        assert!(matches!(refused, ExportError::Exists { .. }), "{refused}");
        let mut target = Target::create(&link, Overwrite::Replace).unwrap();
        target.fill(|file| file.write_all(b"new")).unwrap();
        assert_eq!(target.finish().unwrap(), link);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
