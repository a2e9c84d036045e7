//! Atomic writing: a file appears complete or not at all.
//!
//! The content is written to a temporary file in the folder of the target. When it is complete, it is synced to the
//! disk and renamed. A full disk, an error or a crash therefore leaves the previous file unchanged, and no reader ever
//! sees an incomplete file. An error removes the temporary file.
//!
//! A new file gets the default permissions, 0666 minus the umask. A file that replaces another one gets the
//! permissions of the replaced file. A symbolic link is itself replaced, unless [`behind_link`] is asked for its target
//! first. A device or a pipe, or a link to one, is never replaced.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

/// Beginning of the names of temporary files; the process's number follows.
const PREFIX: &str = ".zeg-";
/// End of the names of temporary files.
const SUFFIX: &str = ".tmp";

/// What to do if the target file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Keep the existing file and fail with [`io::ErrorKind::AlreadyExists`], before anything is written if the file
    /// exists by then.
    #[default]
    Refuse,
    /// Replace the existing file once the new one is complete.
    Replace,
}

/// A file that is being written and appears at its path when [`finish`](Self::finish) is called.
///
/// Dropping it without `finish` removes the temporary file.
#[derive(Debug)]
pub struct NewFile {
    temporary: BufWriter<NamedTempFile>,
    target: Target,
}

impl NewFile {
    /// Creates the temporary file for a new file at `path`, whose folder must exist.
    ///
    /// # Errors
    /// Returns the system's error if no file can be created in the folder, and [`io::ErrorKind::AlreadyExists`] if
    /// anything exists at `path`, even a dangling link, and `overwrite` is [`Overwrite::Refuse`].
    pub fn create(path: &Path, overwrite: Overwrite) -> io::Result<Self> {
        let (temporary, target) = Target::begin(path, overwrite)?;
        Ok(Self {
            temporary: BufWriter::new(temporary),
            target,
        })
    }

    /// Returns the final path of the file.
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    /// Flushes everything written so far and returns the path of the temporary file, so that the content can be read
    /// back before the file is finished.
    ///
    /// # Errors
    /// Returns the system's error if the buffered bytes cannot be written.
    pub fn written(&mut self) -> io::Result<&Path> {
        self.temporary.flush()?;
        Ok(self.temporary.get_ref().path())
    }

    /// Syncs the file to the disk and moves it to its final path.
    ///
    /// # Errors
    /// Returns the system's error if the buffered bytes cannot be written or the file cannot be moved, and
    /// [`io::ErrorKind::AlreadyExists`] if a file has appeared at the path meanwhile and must not be replaced.
    pub fn finish(self) -> io::Result<()> {
        let temporary = self.temporary.into_inner().map_err(io::Error::from)?;
        let (file, temporary) = temporary.into_parts();
        self.target.put(&file, temporary)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

/// Writes `bytes` to a file at `path`.
///
/// # Errors
/// Returns the errors of [`NewFile::create`] and [`NewFile::finish`].
pub fn write(path: &Path, bytes: impl AsRef<[u8]>, overwrite: Overwrite) -> io::Result<()> {
    let mut file = NewFile::create(path, overwrite)?;
    file.write_all(bytes.as_ref())?;
    file.finish()
}

/// Writes a file with a function that gets the path of a temporary file, for libraries that open files themselves.
///
/// The function may replace the temporary file by another one.
///
/// # Errors
/// Returns the errors of [`NewFile::create`], of [`NewFile::finish`] and of `fill`.
pub fn write_by_path(
    path: &Path,
    overwrite: Overwrite,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, target) = Target::begin(path, overwrite)?;
    let temporary = temporary.into_temp_path();
    fill(&temporary)?;
    // Some systems can sync a file only if it is open for writing.
    let file = File::options().write(true).open(&temporary)?;
    target.put(&file, temporary)
}

/// Creates the folder of a file and all missing folders above it.
///
/// # Errors
/// Returns the system's error if a folder cannot be created.
pub fn make_folder_of(path: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(path))
}

/// Moves a complete file that was written by other means to its final path, and syncs file and folder to the disk.
///
/// `file` is the open file at `from`. A file at `to` is replaced.
///
/// # Errors
/// Returns the system's error if the file cannot be synced or moved.
pub fn put_in_place(file: File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    drop(file);
    fs::rename(from, to)?;
    sync_folder(to);
    Ok(())
}

/// Removes temporary files from a folder that a killed process left there.
///
/// The caller holds the folder's [lock](crate::lock), so that no other process writes into it. What cannot be removed
/// stays.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_temporary = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
        if name.to_str().is_some_and(is_temporary)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Checks that files can be created in a folder, and creates the folder if it does not exist.
///
/// # Errors
/// Returns the system's error if the folder cannot be created or written into.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .tempfile_in(folder)
        .map(|_| ())
}

/// Removes the temporary files of processes in a folder, and returns their number.
///
/// A process that is killed cannot remove its temporary files. Folders inside the folder are not searched; what cannot
/// be listed or removed stays.
///
/// - `processes`: numbers of the processes, which must have ended or be this one
pub fn remove_temporaries(folder: &Path, processes: &[u32]) -> usize {
    let prefixes: Vec<String> = processes.iter().map(|number| prefix(*number)).collect();
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let mut of_process = prefixes.iter();
        let is_temporary = name.ends_with(SUFFIX.as_bytes())
            && of_process.any(|prefix| name.starts_with(prefix.as_bytes()));
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_temporary && is_file && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    removed
}

/// Returns the beginning of the names of a process's temporary files.
fn prefix(process: u32) -> String {
    format!("{PREFIX}{process}-")
}

/// The final path of a temporary file, and how it is put there.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    overwrite: Overwrite,
    permissions: Permissions,
}

impl Target {
    /// Creates a temporary file beside `path`.
    fn begin(path: &Path, overwrite: Overwrite) -> io::Result<(NamedTempFile, Self)> {
        let old = fs::symlink_metadata(path);
        if overwrite == Overwrite::Refuse && old.is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a device or a pipe, which a file does not replace",
            ));
        }
        let prefix = prefix(std::process::id());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX);
        let inherited = inherit_permissions(old.ok().filter(fs::Metadata::is_file), &mut builder);
        let temporary = builder.tempfile_in(folder_of(path))?;
        let permissions = match inherited {
            Some(permissions) => permissions,
            None => temporary.as_file().metadata()?.permissions(),
        };
        let target = Self {
            path: path.to_owned(),
            overwrite,
            permissions,
        };
        Ok((temporary, target))
    }

    /// Syncs the temporary file to the disk and moves it to its final path.
    fn put(self, file: &File, temporary: TempPath) -> io::Result<()> {
        if file.metadata()?.permissions() != self.permissions {
            file.set_permissions(self.permissions)?;
        }
        file.sync_all()?;
        let put = match self.overwrite {
            Overwrite::Replace => temporary.persist(&self.path),
            Overwrite::Refuse => temporary.persist_noclobber(&self.path),
        };
        put.map_err(|failed| failed.error)?;
        sync_folder(&self.path);
        Ok(())
    }
}

/// Sets the permissions of the temporary file: those of a new file, or at most those of the file it replaces.
///
/// Returns the permissions that the finished file inherits from the replaced one.
#[cfg(unix)]
fn inherit_permissions(
    old: Option<fs::Metadata>,
    builder: &mut tempfile::Builder<'_, '_>,
) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt as _;
    // The set-user-ID, set-group-ID and sticky bits are not inherited.
    let old = old.map(|old| old.permissions().mode() & !0o7000);
    // The system subtracts the umask. The owner needs write permission until the file is complete.
    let mode = old.map_or(0o666, |old| old & 0o777 | 0o600);
    builder.permissions(Permissions::from_mode(mode));
    old.map(Permissions::from_mode)
}

/// Inherits nothing: on other systems the folder decides about permissions.
#[cfg(not(unix))]
fn inherit_permissions(
    _: Option<fs::Metadata>,
    _: &mut tempfile::Builder<'_, '_>,
) -> Option<Permissions> {
    None
}

/// Returns the folder of a file. A bare file name has the parent "", which no system can open, so it becomes ".".
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Syncs the directory entry of a file to the disk, as far as the system can.
///
/// By now the file is at its path and its content is on the disk. A failure here is ignored, since the folder may be
/// unreadable or its file system may not support syncing folders, and the file is written nevertheless.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = path;
}

/// Returns the path to write a file to so that a symbolic link at `path` stays: that of the file behind the link.
///
/// A path that is no link is returned unchanged, and so is a link that must not be replaced; writing to it then fails.
///
/// # Errors
/// Returns [`io::ErrorKind::NotFound`] for a link that leads to nothing, and the system's error if a link cannot be
/// followed.
pub fn behind_link(path: &Path, overwrite: Overwrite) -> io::Result<PathBuf> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    if overwrite == Overwrite::Refuse || !is_link {
        return Ok(path.to_owned());
    }
    fs::canonicalize(path).map_err(|error| read_error(path, error))
}

/// Returns the target of a symbolic link that leads to nothing; `None` for everything else.
pub fn dead_link(path: &Path) -> Option<PathBuf> {
    let target = fs::read_link(path).ok()?;
    let missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    missing.then_some(target)
}

/// Returns the error of reading a file; for a link that leads to nothing, it names the link's target.
///
/// The system says only that there is no such file, although the path that was given exists.
pub fn read_error(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    match dead_link(path) {
        Some(target) => io::Error::new(
            io::ErrorKind::NotFound,
            format!("a link to {}, which does not exist", target.display()),
        ),
        None => error,
    }
}

/// Creates a file without a name in the folder for temporary files; it disappears when it is closed.
///
/// # Errors
/// Returns the system's error, with the folder and the variable that names it, if no file can be created there.
pub fn unnamed() -> io::Result<File> {
    tempfile::tempfile().map_err(|error| temporary_error(&error))
}

/// Returns the error of using the folder for temporary files, with the folder and the variable that names it.
pub fn temporary_error(error: &io::Error) -> io::Error {
    let folder = std::env::temp_dir();
    io::Error::new(
        error.kind(),
        format!(
            "the folder for temporary files, {} (set by TMPDIR), cannot be written: {error}",
            folder.display()
        ),
    )
}
