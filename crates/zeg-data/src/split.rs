//! Split lists: text files with one image per line, named by its id or by the paths of its files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use zeg_image::IMAGE_EXTENSIONS;
use zeg_vocab::text_file;

use crate::DataError;

/// Largest size of a list, in bytes: a million ids of 256 bytes.
const MAX_LIST_BYTES: u64 = 1 << 28;

/// The allowed form of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdForm {
    /// A file name without blanks.
    Name,
    /// A file name that may contain blanks and may follow folder names.
    Path,
}

/// The content of a split list.
#[derive(Debug, Default)]
pub(crate) struct SplitList {
    /// The images, in the order of their lines, each once.
    pub(crate) entries: Vec<Entry>,
    /// A [`DataError::DuplicateId`] for each repetition.
    pub(crate) repeated: Vec<DataError>,
}

/// A line of a split list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The id of an image.
    Id(String),
    /// The path of an image, and maybe that of its label file, as in the lists of DeepLab:
    /// `/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png`.
    Files(ListedFiles),
}

/// Paths in a line of a split list, relative to the data set's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedFiles {
    /// Line, from 1.
    pub(crate) line: usize,
    pub(crate) image: String,
    pub(crate) labels: Option<String>,
}

/// Reads a split list, whose lines are ids or paths of files.
///
/// Blank lines, blanks around an id, Windows line ends and a byte order mark are accepted. A line is a path if it ends
/// with the extension of an image; two paths are separated by a blank or a tab, and a slash before a path is left out.
///
/// # Errors
/// Returns an error:
/// - [`DataError::Text`] if the file is not readable text
/// - [`DataError::IllegalId`] if a line is neither an id nor a path in the data set's folder
/// - [`DataError::Empty`] if the list has no ids
pub(crate) fn read_split(list: &Path, form: IdForm) -> Result<SplitList, DataError> {
    let text = text_file::read(list, MAX_LIST_BYTES)?;
    let mut found = SplitList::default();
    let mut first_line: HashMap<String, usize> = HashMap::new();
    for (line, text) in (1..).zip(text.lines().map(str::trim)) {
        if text.is_empty() {
            continue;
        }
        let entry = entry(text, line, form).ok_or_else(|| illegal(list, line, text))?;
        let key = match &entry {
            Entry::Id(id) => id,
            Entry::Files(files) => &files.image,
        };
        if let Some(&first) = first_line.get(key) {
            found.repeated.push(DataError::DuplicateId {
                list: list.to_owned(),
                id: key.clone(),
                first,
                second: line,
            });
            continue;
        }
        first_line.insert(key.clone(), line);
        found.entries.push(entry);
    }
    if found.entries.is_empty() {
        return Err(DataError::Empty {
            path: list.to_owned(),
        });
    }
    Ok(found)
}

/// Returns the error of a line that names no image.
pub(crate) fn illegal(list: &Path, line: usize, text: &str) -> DataError {
    DataError::IllegalId {
        list: list.to_owned(),
        line,
        text: shortened(text),
    }
}

/// Returns what a line names; `None` if it is neither an id nor paths.
fn entry(text: &str, line: usize, form: IdForm) -> Option<Entry> {
    let files = |image: &str, labels: Option<&str>| {
        Some(Entry::Files(ListedFiles {
            line,
            image: inner_path(image)?,
            labels: match labels {
                Some(labels) => Some(inner_path(labels)?),
                None => None,
            },
        }))
    };
    // A name may have blanks, so the line is divided where both sides end like a file.
    let mut blanks = text.match_indices(char::is_whitespace);
    let columns = blanks.find_map(|(place, _)| {
        let (image, labels) = text.split_at(place);
        let (image, labels) = (image.trim(), labels.trim());
        (is_image_file(image) && is_image_file(labels)).then_some((image, labels))
    });
    match columns {
        Some((image, labels)) => files(image, Some(labels)),
        None if is_image_file(text) => files(text, None),
        None => is_id(text, form).then(|| Entry::Id(text.to_owned())),
    }
}

/// Returns whether a text ends with the extension of an image.
fn is_image_file(text: &str) -> bool {
    let ending = Path::new(text).extension();
    ending.is_some_and(|ending| {
        IMAGE_EXTENSIONS
            .iter()
            .any(|image| ending.eq_ignore_ascii_case(image))
    })
}

/// Returns a path without a slash or dot before it; `None` if it would lead out of the data set's folder.
fn inner_path(text: &str) -> Option<String> {
    let path = text.trim_start_matches("./").trim_start_matches('/');
    is_id(path, IdForm::Path).then(|| path.to_owned())
}

/// Returns whether a text is an id. Ids become parts of paths and must not lead out of the data set's folder.
pub(crate) fn is_id(id: &str, form: IdForm) -> bool {
    let plain = |name: &str| {
        let illegal = |c: char| {
            c.is_control()
                || matches!(c, '/' | '\\' | ':')
                || (form == IdForm::Name && c.is_whitespace())
        };
        !name.is_empty() && name != "." && name != ".." && !name.contains(illegal)
    };
    match form {
        IdForm::Name => plain(id),
        IdForm::Path => id.split('/').all(plain),
    }
}

/// Returns at most the first 80 characters of a line, for an error message, with control characters escaped.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| match c {
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Returns whether a split is given as the path of a file and not by name.
pub(crate) fn is_path(split: &str) -> bool {
    let path = Path::new(split);
    path.components().count() > 1
        || path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("txt"))
}

/// Returns the names of the `.txt` files in `folder`, without the extension, sorted; empty if there is no folder.
pub(crate) fn available_splits(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use zeg_vocab::text_file::TextFileError;

    use super::*;

    fn read(text: &[u8], form: IdForm) -> Result<SplitList, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("train.txt");
        fs::write(&list, text).unwrap();
        read_split(&list, form)
    }

    /// Returns the ids of a list without paths.
    fn ids(list: &SplitList) -> Vec<String> {
        let id = |entry: &Entry| match entry {
            Entry::Id(id) => id.clone(),
            Entry::Files(files) => panic!("{files:?}"),
        };
        list.entries.iter().map(id).collect()
    }

    #[test]
    fn blank_lines_and_windows_line_ends_do_not_matter() {
        let text = b"\xef\xbb\xbf2007_000032\r\n\r\n  2007_000039 \n\n2007_000042";
        let list = read(text, IdForm::Name).unwrap();
        assert_eq!(ids(&list), ["2007_000032", "2007_000039", "2007_000042"]);
        assert!(list.repeated.is_empty());
    }

    /// Old Macintosh programs end lines with a carriage return alone.
    #[test]
    fn lone_carriage_returns_end_lines_and_are_never_printed() {
        let list = read(b"a\rb\rc", IdForm::Name).unwrap();
        assert_eq!(ids(&list), ["a", "b", "c"]);
        let error = read(b"a\nb\rc\n", IdForm::Name).unwrap_err().to_string();
        assert!(error.contains(":2: `b\\rc` is not an id"), "{error}");
        assert!(!error.contains('\r'), "{error}");
    }

    /// The lists of DeepLab name the image and its label file, with a slash before each.
    #[test]
    fn lists_in_two_columns_name_the_files() {
        let files = |line, image: &str, labels: Option<&str>| {
            Entry::Files(ListedFiles {
                line,
                image: image.to_owned(),
                labels: labels.map(str::to_owned),
            })
        };
        let text = "/JPEGImages/a.jpg /SegmentationClassAug/a.png\nx/b (1).PNG\ty/b (1)_mask.png\n./c.jpg\n";
        let list = read(text.as_bytes(), IdForm::Name).unwrap();
        assert_eq!(
            list.entries,
            [
                files(1, "JPEGImages/a.jpg", Some("SegmentationClassAug/a.png")),
                files(2, "x/b (1).PNG", Some("y/b (1)_mask.png")),
                files(3, "c.jpg", None),
            ]
        );
        let twice = read(b"/a/b.jpg /c/b.png\na/b.jpg c/b.png\n", IdForm::Name).unwrap();
        assert_eq!((twice.entries.len(), twice.repeated.len()), (1, 1));
        for line in ["../a.jpg", "a.jpg ../b.png", "a//b.jpg", "a\\b.jpg"] {
            let refused = read(line.as_bytes(), IdForm::Name);
            assert!(
                matches!(refused, Err(DataError::IllegalId { line: 1, .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let list = read(b"a\n\nb\na\na\n", IdForm::Name).unwrap();
        assert_eq!(ids(&list), ["a", "b"]);
        let [error, last] = &list.repeated[..] else {
            panic!("{list:?}");
        };
        assert!(matches!(
            error,
            DataError::DuplicateId {
                first: 1,
                second: 4,
                ..
            }
        ));
        assert!(matches!(last, DataError::DuplicateId { second: 5, .. }));
        assert!(error.to_string().contains("`a`"), "{error}");
    }

    #[test]
    fn lists_without_ids_and_lines_with_paths_are_refused() {
        assert!(matches!(
            read(b"\n \r\n", IdForm::Name),
            Err(DataError::Empty { .. })
        ));
        for line in ["/JPEGImages/b", "a b", "..", "a\\b", "c:b"] {
            let text = format!("a\n{line}");
            assert!(
                matches!(
                    read(text.as_bytes(), IdForm::Name),
                    Err(DataError::IllegalId { line: 2, .. })
                ),
                "{line}"
            );
        }
        for line in ["/a", "a//b", "a/../b", "../a", "a/", "a\\b", "a/\u{7}b"] {
            assert!(read(line.as_bytes(), IdForm::Path).is_err(), "{line}");
        }
        let list = read(b"benign/benign (1)\nb", IdForm::Path).unwrap();
        assert_eq!(ids(&list), ["benign/benign (1)", "b"]);
        assert!(matches!(
            read(b"a\n\xff\xfe", IdForm::Name),
            Err(DataError::Text(TextFileError::NotUtf8 { line: 2, .. }))
        ));
        assert!(matches!(
            read_split(Path::new("/"), IdForm::Name),
            Err(DataError::Text(TextFileError::NotRegular { .. }))
        ));
    }
}
