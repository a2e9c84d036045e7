//! Split lists: text files with one picture id a line.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::DataError;

/// Reads the ids of a split list, in the order of its lines.
///
/// Blank lines, blanks around an id, Windows line ends and a byte order mark are accepted.
///
/// # Errors
/// - [`DataError::Unreadable`] when the file is not readable text
/// - [`DataError::IllegalId`] for a line that is not one plain file name
/// - [`DataError::DuplicateId`] for an id that stands in two lines
/// - [`DataError::Empty`] for a list without ids
pub(crate) fn read_split(list: &Path) -> Result<Vec<String>, DataError> {
    let text = fs::read_to_string(list).map_err(|source| DataError::Unreadable {
        path: list.to_owned(),
        source,
    })?;
    let mut ids: Vec<String> = Vec::new();
    let mut first_line: HashMap<&str, usize> = HashMap::new();
    let text = text.trim_start_matches('\u{feff}');
    for (line, id) in (1..).zip(text.lines().map(str::trim)) {
        if id.is_empty() {
            continue;
        }
        if !is_plain_name(id) {
            return Err(DataError::IllegalId {
                list: list.to_owned(),
                line,
                text: id.to_owned(),
            });
        }
        if let Some(first) = first_line.insert(id, line) {
            return Err(DataError::DuplicateId {
                list: list.to_owned(),
                id: id.to_owned(),
                first,
                second: line,
            });
        }
        ids.push(id.to_owned());
    }
    if ids.is_empty() {
        return Err(DataError::Empty {
            path: list.to_owned(),
        });
    }
    Ok(ids)
}

/// Ids become parts of paths: a separator would lead out of the data set's folder.
fn is_plain_name(id: &str) -> bool {
    !id.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\'))
        && id != "."
        && id != ".."
}

/// The names of the `.txt` files in `folder`, without the ending, sorted; empty when there is no folder.
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
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<String>, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("train.txt");
        fs::write(&list, text).unwrap();
        read_split(&list)
    }

    #[test]
    fn blank_lines_and_windows_line_ends_do_not_matter() {
        let ids = read(b"\xef\xbb\xbf2007_000032\r\n\r\n  2007_000039 \n\n2007_000042").unwrap();
        assert_eq!(ids, ["2007_000032", "2007_000039", "2007_000042"]);
    }

    #[test]
    fn a_repeated_id_names_both_lines() {
        let error = read(b"a\n\nb\na\n").unwrap_err();
        assert!(matches!(
            error,
            DataError::DuplicateId {
                first: 1,
                second: 4,
                ..
            }
        ));
        assert!(error.to_string().contains("`a`"), "{error}");
    }

    #[test]
    fn lists_without_ids_and_lines_with_paths_are_refused() {
        assert!(matches!(read(b"\n \r\n"), Err(DataError::Empty { .. })));
        assert!(matches!(
            read(b"a\n/JPEGImages/b.jpg"),
            Err(DataError::IllegalId { line: 2, .. })
        ));
        assert!(matches!(
            read(b".."),
            Err(DataError::IllegalId { line: 1, .. })
        ));
        assert!(matches!(
            read(b"\xff\xfe"),
            Err(DataError::Unreadable { .. })
        ));
    }
}
