//! Files that appear whole or not at all.
//!
//! The content goes to a temporary file in the folder of the target. When it is complete it is brought to the disk
//! and renamed, so that a full disk, an error or a crash leaves whatever stood there before, and no reader ever sees
//! half a file. An error removes the temporary file.
//!
//! A new file has the rights of every new file, 0666 less the umask; one that replaces a file has that file's. A
//! symbolic link is replaced, not what it leads to.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

/// What happens where a file stands already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// The file that stands there is left, and writing fails with [`io::ErrorKind::AlreadyExists`], before any work
    /// where that is known.
    #[default]
    Refuse,
    /// It is replaced when the new file is complete.
    Replace,
}

/// A file in the making, which takes its place in [`finish`](Self::finish).
///
/// Dropping it removes what was written.
#[derive(Debug)]
pub struct NewFile {
    temporary: BufWriter<NamedTempFile>,
    target: Target,
}

impl NewFile {
    /// Begins a file that shall stand at `path`; its folder must exist.
    ///
    /// # Errors
    /// What the system says when the folder takes no files; [`io::ErrorKind::AlreadyExists`] where something stands
    /// at `path`, even a link that leads nowhere, and may not be replaced.
    pub fn create(path: &Path, overwrite: Overwrite) -> io::Result<Self> {
        let (temporary, target) = Target::begin(path, overwrite)?;
        Ok(Self {
            temporary: BufWriter::new(temporary),
            target,
        })
    }

    /// Where the file shall stand.
    pub fn path(&self) -> &Path {
        &self.target.path
    }

    /// Returns the path of the temporary file with everything in it that was written so far, to be read again
    /// before the file takes its place.
    ///
    /// # Errors
    /// What the system says when the rest cannot be written.
    pub fn written(&mut self) -> io::Result<&Path> {
        self.temporary.flush()?;
        Ok(self.temporary.get_ref().path())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// What the system says when the rest cannot be written or the file cannot be moved;
    /// [`io::ErrorKind::AlreadyExists`] where something has appeared at its path that may not be replaced.
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

/// Writes a file of these bytes.
///
/// # Errors
/// As [`NewFile::create`] and [`NewFile::finish`].
pub fn write(path: &Path, bytes: impl AsRef<[u8]>, overwrite: Overwrite) -> io::Result<()> {
    let mut file = NewFile::create(path, overwrite)?;
    file.write_all(bytes.as_ref())?;
    file.finish()
}

/// Writes a file by a function that is given the path of a temporary file, for writers that open files themselves.
///
/// The function may replace the temporary file by another one.
///
/// # Errors
/// As [`NewFile::create`] and [`NewFile::finish`], and what `fill` returns.
pub fn write_by_path(
    path: &Path,
    overwrite: Overwrite,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, target) = Target::begin(path, overwrite)?;
    let temporary = temporary.into_temp_path();
    fill(&temporary)?;
    // Some systems bring to the disk only what is open for writing.
    let file = File::options().write(true).open(&temporary)?;
    target.put(&file, temporary)
}

/// Makes the folder of a file, and those above it, where they are missing.
///
/// # Errors
/// What the system says when a folder cannot be made.
pub fn make_folder_of(path: &Path) -> io::Result<()> {
    fs::create_dir_all(folder_of(path))
}

/// Gives a complete file that was written by other means its final name, and brings both to the disk.
///
/// `file` is the open file at `from`. What stands at `to` is replaced.
///
/// # Errors
/// What the system says when the file cannot be brought to the disk or moved.
pub fn put_in_place(file: File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    drop(file);
    fs::rename(from, to)?;
    sync_folder(to);
    Ok(())
}

/// The place that a temporary file shall take.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    overwrite: Overwrite,
    rights: Permissions,
}

impl Target {
    /// Makes a temporary file beside `path`.
    fn begin(path: &Path, overwrite: Overwrite) -> io::Result<(NamedTempFile, Self)> {
        let old = fs::symlink_metadata(path);
        if overwrite == Overwrite::Refuse && old.is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".zeg-").suffix(".tmp");
        let old_rights = pass_on_rights(old.ok().filter(fs::Metadata::is_file), &mut builder);
        let temporary = builder.tempfile_in(folder_of(path))?;
        let rights = match old_rights {
            Some(rights) => rights,
            None => temporary.as_file().metadata()?.permissions(),
        };
        let target = Self {
            path: path.to_owned(),
            overwrite,
            rights,
        };
        Ok((temporary, target))
    }

    /// Brings the temporary file to the disk and moves it to its place.
    fn put(self, file: &File, temporary: TempPath) -> io::Result<()> {
        if file.metadata()?.permissions() != self.rights {
            file.set_permissions(self.rights)?;
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

/// Gives a temporary file the rights of a new file, or no wider ones than the file has that it replaces.
///
/// Returns the rights that the old file passes on.
#[cfg(unix)]
fn pass_on_rights(
    old: Option<fs::Metadata>,
    builder: &mut tempfile::Builder<'_, '_>,
) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt as _;
    // Not set-user-ID and the like.
    let old = old.map(|old| old.permissions().mode() & !0o7000);
    // The system takes the umask away; the owner may write until the file is complete.
    let mode = old.map_or(0o666, |old| old & 0o777 | 0o600);
    builder.permissions(Permissions::from_mode(mode));
    old.map(Permissions::from_mode)
}

/// Elsewhere the folder decides.
#[cfg(not(unix))]
fn pass_on_rights(
    _: Option<fs::Metadata>,
    _: &mut tempfile::Builder<'_, '_>,
) -> Option<Permissions> {
    None
}

/// The folder of a file; a bare file name has the parent "", which no system can open.
fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Brings a folder's list of names to the disk, as far as the system can.
///
/// The file is in its place and its content on the disk by now. A folder that may not be read, or that lies on a file
/// system that knows no such request, is no reason to call it unwritten.
fn sync_folder(path: &Path) {
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
    #[cfg(not(unix))]
    let _ = path;
}
