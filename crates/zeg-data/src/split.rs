//! Split lists: text files with one image id per line.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

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
pub(crate) struct Ids {
    /// The ids, in the order of their lines, each once.
    pub(crate) ids: Vec<String>,
    /// A [`DataError::DuplicateId`] for each repetition.
    pub(crate) repeated: Vec<DataError>,
}

/// Reads the ids of a split list.
///
/// Blank lines, blanks around an id, Windows line ends and a byte order mark are accepted.
///
/// # Errors
/// Returns an error:
/// - [`DataError::Text`] if the file is not readable text
/// - [`DataError::IllegalId`] if a line is not an id
/// - [`DataError::Empty`] if the list has no ids
pub(crate) fn read_split(list: &Path, form: IdForm) -> Result<Ids, DataError> {
    let text = text_file::read(list, MAX_LIST_BYTES)?;
    let mut found = Ids::default();
    let mut first_line: HashMap<&str, usize> = HashMap::new();
    for (line, id) in (1..).zip(text.lines().map(str::trim)) {
        if id.is_empty() {
            continue;
        }
        if !is_id(id, form) {
            return Err(DataError::IllegalId {
                list: list.to_owned(),
                line,
                text: shortened(id),
            });
        }
        if let Some(&first) = first_line.get(id) {
            found.repeated.push(DataError::DuplicateId {
                list: list.to_owned(),
                id: id.to_owned(),
                first,
                second: line,
            });
            continue;
        }
        first_line.insert(id, line);
        found.ids.push(id.to_owned());
    }
    if found.ids.is_empty() {
        return Err(DataError::Empty {
            path: list.to_owned(),
        });
    }
    Ok(found)
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

/// Returns at most the first 80 characters of a line, for an error message.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
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

    fn read(text: &[u8], form: IdForm) -> Result<Ids, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("train.txt");
        fs::write(&list, text).unwrap();
        read_split(&list, form)
    }

    #[test]
    fn blank_lines_and_windows_line_ends_do_not_matter() {
        let text = b"\xef\xbb\xbf2007_000032\r\n\r\n  2007_000039 \n\n2007_000042";
        let ids = read(text, IdForm::Name).unwrap();
        assert_eq!(ids.ids, ["2007_000032", "2007_000039", "2007_000042"]);
        assert!(ids.repeated.is_empty());
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let ids = read(b"a\n\nb\na\na\n", IdForm::Name).unwrap();
        assert_eq!(ids.ids, ["a", "b"]);
        let [error, last] = &ids.repeated[..] else {
            panic!("{ids:?}");
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
        for line in ["/JPEGImages/b.jpg", "a b", "..", "a\\b", "c:b"] {
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
        let ids = read(b"benign/benign (1)\nb", IdForm::Path).unwrap();
        assert_eq!(ids.ids, ["benign/benign (1)", "b"]);
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
