//! Expands files, folders and patterns on the command line to one list of image files.
//!
//! Only some systems have shells that expand patterns, and no shell enters folders or tells images from other files.
//! So both are done here, in the same way on every system. The list follows the order of the arguments, and the order
//! of names within a folder. A file that is named twice is listed once.
//!
//! A folder or pattern stands for the files with an image extension ([`IMAGE_EXTENSIONS`]), except for hidden ones. A file that
//! is named directly is listed whatever its name is. Links to folders are followed. No folder is entered twice, so
//! cyclic links do no harm.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use zeg_base::file::dead_link;

/// Extensions of image files in folders and patterns, in lower case; the case of a file's extension is ignored.
///
/// Data sets prefer the file with the first of these extensions if several files have one id.
pub const IMAGE_EXTENSIONS: [&str; 16] = [
    "jpg", "png", "jpeg", "tif", "tiff", "bmp", "webp", "gif", "ppm", "pgm", "qoi", "jpe", "jfif",
    "dib", "pnm", "pbm",
];
/// Characters that make an argument a pattern, unless a file of exactly that name exists.
const PATTERN_CHARACTERS: [char; 4] = ['*', '?', '[', '{'];
/// The largest number of files in a folder that are compared in the search for a similar name.
const MOST_COMPARED: usize = 10_000;
/// The length of the longest name that is compared, in characters.
const LONGEST_COMPARED: usize = 255;

/// Whether subfolders are searched for images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Recursion {
    /// A folder stands for the images directly in it.
    #[default]
    FolderOnly,
    /// A folder stands for the images in it and in all its subfolders.
    Subfolders,
}

/// An image to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InputImage {
    /// The path of the file, as it follows from the argument.
    pub path: PathBuf,
    /// The path within the folder of the argument, for results that mirror the folder. For a file that was named
    /// directly, this is the file name. Images from two folders may have the same relative path.
    pub relative: PathBuf,
}

/// Reason why an argument stands for no image.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// There is no argument.
    #[error("no image, folder or pattern is given")]
    NoArguments,
    /// No file or folder has this name.
    #[error("{}: no such file or folder{}", path.display(), did_you_mean(closest.as_deref()))]
    NotFound {
        /// The argument, or the folder at the start of a pattern.
        path: PathBuf,
        /// The most similar name in the same folder, if one is similar enough.
        closest: Option<PathBuf>,
    },
    /// The argument is a symbolic link that leads to nothing.
    #[error("{}: a link to {}, which does not exist", path.display(), target.display())]
    DeadLink {
        /// The argument.
        path: PathBuf,
        /// The target as the link states it.
        target: PathBuf,
    },
    /// The argument is a device or a pipe, which might never end.
    #[error("{}: neither a file nor a folder", path.display())]
    NotRegular {
        /// The argument.
        path: PathBuf,
    },
    /// A folder or file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A folder contains no image.
    #[error("{}: no images in this folder; it contains {}", path.display(), counts(*others, *folders))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// Number of other files in it.
        others: usize,
        /// Number of subfolders that were not entered.
        folders: usize,
    },
    /// A pattern matches no image.
    #[error("pattern {pattern:?} matches no image; it matches {}", counts(*others, *folders))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// Number of other files that match.
        others: usize,
        /// Number of folders that match.
        folders: usize,
    },
    /// A pattern is malformed.
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

/// Returns the images that the arguments stand for.
///
/// An argument is a file, a folder or a pattern. In a pattern, `*` and `?` stand for characters within one name, `[ab]`
/// and `{one,other}` for alternatives, and `**` for any number of folders.
///
/// # Errors
/// Returns [`InputError`] for the first argument that stands for no image.
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
        Err(_) if is_pattern(argument) && dead_link(argument).is_none() => matching(argument),
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

/// Returns the images that match a pattern.
///
/// The leading components without special characters, or that name a folder, are the folder to walk; the rest is
/// matched. If nothing matches, brackets and braces are taken literally, as parts of names.
fn matching(argument: &Path) -> Result<Vec<InputImage>, InputError> {
    let pattern = argument.to_string_lossy().into_owned();
    let (base, rest) = split_pattern(argument);
    let any_depth = rest
        .iter()
        .any(|part| part.as_os_str().to_string_lossy().contains("**"));
    let depth = (!any_depth).then_some(rest.len());
    let build = |brackets| {
        matcher(&rest, brackets).map_err(|error| InputError::Pattern {
            pattern: pattern.clone(),
            reason: error.kind().to_string(),
        })
    };
    let matchers = [build(Brackets::Alternatives)?, build(Brackets::Literal)?];
    let folder = if base.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &base
    };
    if !folder.is_dir() {
        return Err(not_found(folder));
    }
    let mut found = Found::default();
    for matcher in matchers {
        if found.images.is_empty() {
            found = Found::default();
            walk(folder, depth, &mut found, |relative| {
                matcher.is_match(relative)
            })?;
        }
    }
    if found.images.is_empty() {
        return Err(InputError::NoMatch {
            pattern,
            others: found.others,
            folders: found.folders,
        });
    }
    if base.as_os_str().is_empty() {
        // The paths are shown as the user would write them, without `./`.
        for image in &mut found.images {
            image.path.clone_from(&image.relative);
        }
    }
    Ok(found.images)
}

/// Splits a pattern into the folder to walk and the components to match.
///
/// A component with special characters that names an existing folder is a part of the folder.
fn split_pattern(argument: &Path) -> (PathBuf, Vec<Component<'_>>) {
    let mut base = PathBuf::new();
    let mut rest = argument.components();
    loop {
        let mut next = rest.clone();
        let Some(component) = next.next() else {
            break;
        };
        let folder = base.join(component);
        if is_pattern(Path::new(component.as_os_str())) && !folder.is_dir() {
            break;
        }
        (base, rest) = (folder, next);
    }
    (base, rest.collect())
}

/// The meaning of brackets and braces in a pattern.
#[derive(Clone, Copy)]
enum Brackets {
    /// They enclose alternatives.
    Alternatives,
    /// They are characters of names.
    Literal,
}

fn matcher(parts: &[Component], brackets: Brackets) -> Result<GlobMatcher, globset::Error> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let mut pattern = parts.join("/");
    if let Brackets::Literal = brackets {
        pattern = pattern
            .chars()
            .map(|character| match character {
                '[' | ']' | '{' | '}' => format!("[{character}]"),
                other => other.to_string(),
            })
            .collect();
    }
    let glob = GlobBuilder::new(&pattern)
        .literal_separator(true)
        .case_insensitive(cfg!(windows))
        .build()?;
    Ok(glob.compile_matcher())
}

/// The images found by a walk, and the numbers of other files and folders.
#[derive(Default)]
struct Found {
    images: Vec<InputImage>,
    others: usize,
    folders: usize,
}

/// Walks a folder in the order of names and collects the images for whose relative path `fits` is true.
///
/// `depth` is the number of levels: 1 means only the folder itself, `None` means no limit.
fn walk(
    folder: &Path,
    depth: Option<usize>,
    found: &mut Found,
    fits: impl Fn(&Path) -> bool,
) -> Result<(), InputError> {
    let mut entered = HashSet::new();
    // A stack of paths within the folder, whose next path is the last one.
    let mut ahead: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(relative) = ahead.pop() {
        let path = folder.join(&relative);
        // A dangling link, or a file that was deleted a moment ago, is skipped.
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

/// Returns whether the extension of a file is one of [`IMAGE_EXTENSIONS`], in upper or lower case.
fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| {
        IMAGE_EXTENSIONS
            .iter()
            .any(|image| extension.eq_ignore_ascii_case(image))
    })
}

/// Returns a path that is equal for two paths to the same file: the canonical path of the folder, and the file name.
///
/// Two links to one file count as two images.
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
    let path = path.to_owned();
    match dead_link(&path) {
        Some(target) => InputError::DeadLink { path, target },
        None => InputError::NotFound {
            closest: closest(&path),
            path,
        },
    }
}

/// Returns the most similar name in the same folder, ignoring case, if at most a third of its characters differ.
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
