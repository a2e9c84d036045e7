//! Tests of the journal of long work.

use serde_json::json;

use super::*;

fn settings(threshold: f64) -> Fingerprint {
    settings_of(&json!({ "threshold": threshold, "model": { "crop": 512 } }))
}

/// Opens a journal of numbers and returns it with its entries.
fn open(path: &Path) -> (Journal, Vec<(usize, u32)>) {
    let mut entries = Vec::new();
    let journal = Journal::open(path, |number, _, entry: u32| entries.push((number, entry)));
    (journal.unwrap(), entries)
}

#[test]
fn entries_come_back_with_their_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/.journal");
    let (mut journal, entries) = open(&path);
    assert!(entries.is_empty());
    journal.begin(&settings(0.5)).unwrap();
    journal.append(&1_u32).unwrap();
    journal.append(&2_u32).unwrap();
    drop(journal);
    let (mut journal, entries) = open(&path);
    assert_eq!(entries, [(0, 1), (0, 2)]);
    assert_eq!(journal.begin(&settings(0.5)).unwrap(), 0);
    assert_eq!(journal.begin(&settings(0.3)).unwrap(), 1);
    journal.append(&3_u32).unwrap();
    let error = journal
        .other_settings(Path::new("a.png"), 0, &settings(0.3))
        .to_string();
    assert_eq!(
        error,
        "a.png: was made with other settings: threshold was 0.5 and is 0.3"
    );
    drop(journal);
    let mut spans = Vec::new();
    let journal = Journal::open(&path, |number, span, entry: u32| {
        spans.push((number, span, entry));
    });
    let journal = journal.unwrap();
    assert_eq!(
        spans.last().map(|&(number, _, entry)| (number, entry)),
        Some((1, 3))
    );
    for (_, span, entry) in spans {
        assert_eq!(journal.read::<u32>(span).unwrap(), entry);
    }
}

#[test]
fn a_line_that_a_crash_cut_off_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".journal");
    let (mut journal, _) = open(&path);
    journal.begin(&settings(0.5)).unwrap();
    journal.append(&1_u32).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for end in ["{\"entry\":2", "{\"entry\":2}", "\0\0\0\n{\"entry\":2}\n"] {
        std::fs::write(&path, [&whole[..], end.as_bytes()].concat()).unwrap();
        let (journal, entries) = open(&path);
        assert_eq!(entries, [(0, 1)], "{end:?}");
        journal.append(&7_u32).unwrap();
        drop(journal);
        assert_eq!(open(&path).1, [(0, 1), (0, 7)]);
    }
    std::fs::write(&path, "{\"other\":1}\n").unwrap();
    let error = Journal::open(&path, |_, _, _: u32| ()).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
}

#[test]
fn a_file_that_is_no_journal_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".journal");
    for own in [
        "my notes\n",
        "my notes",
        "{note",
        "a\n{\"entry\":1}\n",
        "\n",
    ] {
        std::fs::write(&path, own).unwrap();
        let error = Journal::open(&path, |_, _, _: u32| ()).unwrap_err();
        assert!(error.to_string().contains("no journal"), "{own:?}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
    }
    // A crash cut off the first line.
    for cut in ["", "{\"pro", "{\"process\":12", "\0\0\0"] {
        std::fs::write(&path, cut).unwrap();
        assert!(open(&path).1.is_empty(), "{cut:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "{cut:?}");
    }
}

#[test]
fn a_finished_journal_is_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".journal");
    let (mut journal, _) = open(&path);
    journal.begin(&settings(0.5)).unwrap();
    for number in 0..9_u32 {
        journal.append(&number).unwrap();
    }
    journal.finish(&100_u32).unwrap();
    let (journal, entries) = open(&path);
    assert_eq!(entries, [(0, 100)]);
    assert_eq!(journal.find(&settings(0.5)), Some(0));
    assert_eq!(journal.find(&settings(0.3)), None);
}

#[test]
fn one_process_at_a_time_writes_into_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".journal");
    let (journal, _) = open(&path);
    let error = Journal::open(&path, |_, _, _: u32| ()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    drop(journal);
    open(&path);
}

#[test]
fn the_first_differences_are_named() {
    let old = settings_of(&json!({ "a": 1, "b": { "c": [1, 2] }, "d": null }));
    let says = |new: Value| difference(&old, &settings_of(&new));
    assert_eq!(says(json!({ "a": 1, "b": { "c": [1, 2] } })), "");
    let text = says(json!({ "a": 1, "b": { "c": [1] }, "d": null }));
    assert_eq!(text, "b.c was [1,2] and is [1]");
    let text = says(json!({ "a": 1, "b": { "c": [1, 2] }, "d": null, "e": "x" }));
    assert_eq!(text, "e was not set and is x");
    let text = says(json!({ "f": 1, "g": 2, "h": 3 }));
    let first =
        "a was 1 and is not set; b.c was [1,2] and is not set; f was not set and is 1; and 2 more";
    assert_eq!(text, first);
}

#[test]
fn settings_that_an_earlier_version_wrote_with_a_digest_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".journal");
    let earlier = "{\"settings\":{\"digest\":\"ab\",\"values\":{\"threshold\":0.5,\"model\":{\"crop\":512},\"x\":null}}}\n\
                   {\"entry\":7}\n";
    std::fs::write(&path, earlier).unwrap();
    let (mut journal, entries) = open(&path);
    assert_eq!(entries, [(0, 7)]);
    assert_eq!(journal.begin(&settings(0.5)).unwrap(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_is_found_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    check_writable(&folder.path().join("new/deep")).unwrap();
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let error = check_writable(&link).unwrap_err().to_string();
        assert!(
            error.ends_with("link: a link to nowhere, which does not exist"),
            "{error}"
        );
        std::fs::remove_file(&link).unwrap();
    }
    assert!(
        check_writable(&file.join("new"))
            .unwrap_err()
            .to_string()
            .contains("not a folder")
    );
    assert!(check_writable(&file).is_err());
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "nothing is left behind");
}
