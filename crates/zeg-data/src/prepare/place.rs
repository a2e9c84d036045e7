//! Puts files into the result as links, copies and lists, and makes sure that no file of the download is changed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use zeg_base::file::{self, NewFile, Overwrite};

use super::{ImagePlacement, PrepareError};

/// Returns whether a converted file exists and is not older than the file it was made from.
///
/// A link does not count, because it leads to the file before its conversion.
pub(crate) fn is_converted(to: &Path, from: &Path) -> bool {
    fs::symlink_metadata(to).is_ok_and(|made| made.is_file()) && is_newer(to, from)
}

/// Returns whether a file that is linked or copied unchanged is already in the result.
pub(crate) fn is_placed(to: &Path, from: &Path, images: ImagePlacement) -> bool {
    let Ok(made) = fs::symlink_metadata(to) else {
        return false;
    };
    if made.is_symlink() {
        return is_same_place(to, from) || images == ImagePlacement::Link && is_same_file(to, from);
    }
    let same_length = fs::metadata(from).is_ok_and(|from| from.len() == made.len());
    made.is_file() && (same_length && is_newer(to, from) || is_same_file(to, from))
}

fn is_newer(to: &Path, from: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    matches!((time(to), time(from)), (Ok(made), Ok(source)) if made >= source)
}

/// Returns whether two paths lead to one file.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Returns whether two paths name one entry of one folder; a link counts as itself and not as its target.
fn is_same_place(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| path.parent().map(fs::canonicalize);
    a.file_name() == b.file_name()
        && matches!((folder(a), folder(b)), (Some(Ok(a)), Some(Ok(b))) if a == b)
}

/// Returns whether the path of the result is the path of its own source.
pub(crate) fn is_in_place(to: &Path, from: &Path) -> bool {
    let is_link = fs::symlink_metadata(to).is_ok_and(|made| made.is_symlink());
    !is_link && is_same_file(to, from)
}

/// Links or copies `from` to `to`, replacing an existing file.
pub(crate) fn place(
    to: &Path,
    from: &Path,
    images: ImagePlacement,
) -> Result<Placed, PrepareError> {
    // Opened before linking, so that an unreadable file is reported with its own path and not linked to.
    let mut source = File::open(from).map_err(|source| PrepareError::unreadable(from, source))?;
    let unwritable = |source| PrepareError::unwritable(to, source);
    if images == ImagePlacement::Link && link(to, from).map_err(unwritable)? {
        return Ok(Placed::Linked);
    }
    let mut file = NewFile::create(to, Overwrite::Replace).map_err(unwritable)?;
    io::copy(&mut source, &mut file).map_err(unwritable)?;
    file.finish().map_err(unwritable)?;
    Ok(Placed::Copied)
}

/// The way in which a file was put into the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Linked,
    Copied,
}

/// Makes a link under a temporary name and renames it; returns `false` if the system cannot make the link.
fn link(to: &Path, from: &Path) -> io::Result<bool> {
    let from = absolute(from)?;
    let mut name = OsString::from(".zeg-");
    name.push(to.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = to.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(&from, &temporary)?;
    #[cfg(not(unix))]
    if fs::hard_link(&from, &temporary).is_err() {
        return Ok(false);
    }
    fs::rename(&temporary, to).inspect_err(|_| {
        // The error of the rename is the one to report.
        let _ = fs::remove_file(&temporary);
    })?;
    Ok(true)
}

fn absolute(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Writes a list of ids unless the file already holds the same lines; returns whether it was written.
pub(crate) fn write_list(to: &Path, ids: &[String]) -> Result<bool, PrepareError> {
    let mut text = ids.join("\n");
    text.push('\n');
    if fs::read_to_string(to).is_ok_and(|there| there.lines().eq(text.lines())) {
        return Ok(false);
    }
    file::write(to, text, Overwrite::Replace)
        .map_err(|source| PrepareError::unwritable(to, source))?;
    Ok(true)
}

/// A check that no path of the result replaces a file of the download.
pub(crate) struct Guard {
    from: PathBuf,
    /// For folders that were checked before: whether they lie in the download.
    known: HashMap<PathBuf, bool>,
}

impl Guard {
    pub(crate) fn new(from: &Path) -> Result<Self, PrepareError> {
        let real =
            fs::canonicalize(from).map_err(|source| PrepareError::unreadable(from, source))?;
        Ok(Self {
            from: real,
            known: HashMap::new(),
        })
    }

    /// Returns an error if `path` exists and lies in the download's folder.
    pub(crate) fn check(&mut self, path: &Path) -> Result<(), PrepareError> {
        if fs::symlink_metadata(path).is_err() {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(path);
        let inside = if let Some(&inside) = self.known.get(folder) {
            inside
        } else {
            let real = fs::canonicalize(folder);
            let inside = real.is_ok_and(|folder| folder.starts_with(&self.from));
            self.known.insert(folder.into(), inside);
            inside
        };
        if inside {
            return Err(self.refusal(path));
        }
        Ok(())
    }

    pub(crate) fn refusal(&self, path: &Path) -> PrepareError {
        PrepareError::WouldReplaceSource {
            path: path.into(),
            from: self.from.clone(),
        }
    }
}
