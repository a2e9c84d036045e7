//! What a user names as images: files, folders and patterns, as one list of files.
//!
//! Shells expand patterns on some systems and not on others, and no shell descends into folders or tells images from
//! other files, so it is done here, the same everywhere. The order is that of the arguments, and by name within a
//! folder; a file that is named twice comes once.
//!
//! Folders and patterns give the files whose extension is an image's (`EXTENSIONS`) and pass over hidden ones; a file
//! named by itself is taken whatever its name. Links to folders are followed, and no folder is entered twice, so loops
//! of links end.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// Extensions that folders and patterns take for images, in any case.
const EXTENSIONS: [&str; 16] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "dib", "gif", "pnm", "pbm",
    "pgm", "ppm", "qoi",
];
/// Characters that make an argument a pattern, unless a file has that very name.
const PATTERN_CHARACTERS: [char; 4] = ['*', '?', '[', '{'];
/// Files of a folder that are looked at for a similar name.
const MOST_COMPARED: usize = 10_000;
/// Characters of the longest name that is compared.
const LONGEST_COMPARED: usize = 255;

/// Whether folders are entered that lie within a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recursion {
    /// A folder means the images that lie directly in it.
    #[default]
    FolderOnly,
    /// A folder means all images below it.
    Subfolders,
}

/// An image to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InputImage {
    /// The file, by the way that it was named.
    pub path: PathBuf,
    /// Its path within the folder that was named, for results that mirror the folder; the bare name of a file that was
    /// named by itself. Images from two folders may have the same.
    pub relative: PathBuf,
}

/// Arguments that do not lead to images.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is no argument.
    #[error("no image, folder or pattern is named")]
    NoArguments,
    /// There is nothing of this name.
    #[error("{}: no such file or folder{}", path.display(), did_you_mean(closest.as_deref()))]
    NotFound {
        /// The argument, or the folder that a pattern begins with.
        path: PathBuf,
        /// The most similar name in the same folder, if one is similar.
        closest: Option<PathBuf>,
    },
    /// A device or a pipe, which might never end.
    #[error("{}: neither a file nor a folder", path.display())]
    NotRegular {
        /// The argument.
        path: PathBuf,
    },
    /// A folder or file that cannot be looked at.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder without images.
    #[error("{}: no images in this folder; it holds {}", path.display(), counts(*others, *folders))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// Other files in it.
        others: usize,
        /// Folders in it that were not entered.
        folders: usize,
    },
    /// A pattern that no image fits.
    #[error("{pattern:?} fits no image; it fits {}", counts(*others, *folders))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Other files that fit.
        others: usize,
        /// Folders that fit.
        folders: usize,
    },
    /// A pattern that is not well-formed.
    #[error("pattern {pattern:?}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

fn did_you_mean(closest: Option<&Path>) -> String {
    closest.map_or_else(String::new, |path| {
        format!("; did you mean {}?", path.display())
    })
}

fn counts(others: usize, folders: usize) -> String {
    let plural = |count: usize, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    if (others, folders) == (0, 0) {
        return "nothing else".to_owned();
    }
    format!(
        "{} and {}",
        plural(others, "other file", "other files"),
        plural(folders, "folder", "folders")
    )
}

/// The images that the arguments mean.
///
/// An argument is a file, a folder or a pattern, in which `*` and `?` stand for characters of one name, `[ab]` and
/// `{one,other}` for choices, and `**` for any folders.
///
/// # Errors
/// [`InputError`] for the first argument that leads to no image.
pub fn expand(args: &[PathBuf], recursion: Recursion) -> Result<Vec<InputImage>, InputError> {
    if args.is_empty() {
        return Err(InputError::NoArguments);
    }
    let mut images = Vec::new();
    for argument in args {
        images.extend(expand_one(argument, recursion)?);
    }
    let mut taken = HashSet::new();
    images.retain(|image: &InputImage| taken.insert(identity(&image.path)));
    Ok(images)
}

fn expand_one(argument: &Path, recursion: Recursion) -> Result<Vec<InputImage>, InputError> {
    match fs::metadata(argument) {
        Ok(metadata) if metadata.is_dir() => in_folder(argument, recursion),
        Ok(metadata) if metadata.is_file() => Ok(vec![InputImage {
            path: argument.into(),
            relative: argument.file_name().unwrap_or_default().into(),
        }]),
        Ok(_) => Err(InputError::NotRegular {
            path: argument.into(),
        }),
        Err(_) if is_pattern(argument) => matching(argument),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found(argument)),
        Err(source) => Err(InputError::Unreadable {
            path: argument.into(),
            source,
        }),
    }
}

fn in_folder(folder: &Path, recursion: Recursion) -> Result<Vec<InputImage>, InputError> {
    let depth = match recursion {
        Recursion::FolderOnly => Some(1),
        Recursion::Subfolders => None,
    };
    let mut found = Found::default();
    walk(folder, depth, &mut found, |_| true)?;
    if found.images.is_empty() {
        return Err(InputError::EmptyFolder {
            path: folder.into(),
            others: found.others,
            folders: found.folders,
        });
    }
    Ok(found.images)
}

fn is_pattern(argument: &Path) -> bool {
    let text = argument.to_str();
    text.is_some_and(|text| text.contains(PATTERN_CHARACTERS))
}

/// The images that fit a pattern. The folder that it begins with is walked, the rest is matched.
fn matching(argument: &Path) -> Result<Vec<InputImage>, InputError> {
    let pattern = argument.to_string_lossy().into_owned();
    let is_literal = |component: &Component| !is_pattern(Path::new(component.as_os_str()));
    let base: PathBuf = argument.components().take_while(is_literal).collect();
    let rest: Vec<Component> = argument.components().skip_while(is_literal).collect();
    let any_depth = rest
        .iter()
        .any(|part| part.as_os_str().to_string_lossy().contains("**"));
    let depth = (!any_depth).then_some(rest.len());
    let matcher = matcher(&rest).map_err(|error| InputError::Pattern {
        pattern: pattern.clone(),
        reason: error.kind().to_string(),
    })?;
    let folder = if base.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &base
    };
    if !folder.is_dir() {
        return Err(not_found(folder));
    }
    let mut found = Found::default();
    walk(folder, depth, &mut found, |relative| {
        matcher.is_match(relative)
    })?;
    if found.images.is_empty() {
        return Err(InputError::NoMatch {
            pattern,
            others: found.others,
            folders: found.folders,
        });
    }
    if base.as_os_str().is_empty() {
        // As the user would name it, without `./`.
        for image in &mut found.images {
            image.path.clone_from(&image.relative);
        }
    }
    Ok(found.images)
}

fn matcher(parts: &[Component]) -> Result<GlobMatcher, globset::Error> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let glob = GlobBuilder::new(&parts.join("/"))
        .literal_separator(true)
        .case_insensitive(cfg!(windows))
        .build()?;
    Ok(glob.compile_matcher())
}

/// What a walk came across.
#[derive(Default)]
struct Found {
    images: Vec<InputImage>,
    others: usize,
    folders: usize,
}

/// Walks a folder by name, down to `depth` levels (1: only what lies in it), and takes the images that `fits` takes
/// by their path within the folder.
fn walk(
    folder: &Path,
    depth: Option<usize>,
    found: &mut Found,
    fits: impl Fn(&Path) -> bool,
) -> Result<(), InputError> {
    let mut entered = HashSet::new();
    // Paths within the folder, the next one last.
    let mut ahead: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(relative) = ahead.pop() {
        let path = folder.join(&relative);
        // A link to nothing, or a file that has just gone.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            let is_within = depth.is_none_or(|depth| relative.components().count() < depth);
            if is_within {
                let unreadable = |source| InputError::Unreadable {
                    path: path.clone(),
                    source,
                };
                if entered.insert(fs::canonicalize(&path).map_err(unreadable)?) {
                    let mut names = visible_names(&path).map_err(unreadable)?;
                    names.sort_unstable_by(|a, b| b.cmp(a));
                    ahead.extend(names.iter().map(|name| relative.join(name)));
                }
            } else if fits(&relative) {
                found.folders += 1;
            }
        } else if fits(&relative) {
            if metadata.is_file() && has_image_extension(&path) {
                found.images.push(InputImage { path, relative });
            } else {
                found.others += 1;
            }
        }
    }
    Ok(())
}

fn visible_names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    Ok(names)
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| {
        EXTENSIONS
            .iter()
            .any(|image| extension.eq_ignore_ascii_case(image))
    })
}

/// What tells whether two paths are one file: its folder, by its true path, and its name there. Two links to one file
/// are two images.
fn identity(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match (fs::canonicalize(parent), path.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => path.into(),
    }
}

fn not_found(path: &Path) -> InputError {
    InputError::NotFound {
        path: path.into(),
        closest: closest(path),
    }
}

/// The most similar name beside the path, whatever its case, if at most a third of it differs.
fn closest(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let length = name.chars().count();
    if length > LONGEST_COMPARED {
        return None;
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or(Path::new("."))).ok()?;
    let names = entries
        .take(MOST_COMPARED)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let name = name.to_lowercase();
    let (distance, nearest) = names
        .map(|other| {
            (
                strsim::damerau_levenshtein(&other.to_lowercase(), &name),
                other,
            )
        })
        .min()?;
    (3 * distance <= length).then(|| path.with_file_name(nearest))
}
