//! Tests that files appear complete or not at all, with the right permissions, and leave no temporary file behind.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use zeg_base::file::{
    NewFile, Overwrite, behind_link, make_folder_of, put_in_place, remove_temporaries, write,
    write_by_path,
};

/// Returns the file names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_streamed_file_appears_when_it_is_finished_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("numbers");
    let mut file = NewFile::create(&path, Overwrite::Refuse).unwrap();
    let piece = [7_u8; 1000];
    for _ in 0..100 {
        file.write_all(&piece).unwrap();
    }
    assert_eq!(file.path(), path);
    assert!(!path.exists());
    assert_eq!(fs::read(file.written().unwrap()).unwrap(), vec![7; 100_000]);
    file.write_all(b"end").unwrap();
    file.finish().unwrap();
    let content = fs::read(&path).unwrap();
    assert_eq!((content.len(), &content[100_000..]), (100_003, &b"end"[..]));
    assert_eq!(names(folder.path()), ["numbers"]);
}

#[test]
fn an_existing_file_is_refused_at_the_beginning_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.png");
    let mut early = NewFile::create(&path, Overwrite::Refuse).unwrap();
    early.write_all(b"new").unwrap();
    fs::write(&path, "mine").unwrap();
    let refused = NewFile::create(&path, Overwrite::Refuse).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert_eq!(early.finish().unwrap_err().kind(), ErrorKind::AlreadyExists);
    let by_path = write_by_path(&path, Overwrite::Refuse, |_| unreachable!());
    assert_eq!(by_path.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    write(&path, "third", Overwrite::Replace).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"third");
    assert_eq!(names(folder.path()), ["labels.png"]);
}

#[test]
fn an_error_leaves_the_old_file_and_no_temporary_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.png");
    fs::write(&path, "old").unwrap();
    let full = || io::Error::from(ErrorKind::StorageFull);
    let by_path = write_by_path(&path, Overwrite::Replace, |temporary| {
        fs::write(temporary, "half of the new")?;
        Err(full())
    });
    assert_eq!(by_path.unwrap_err().kind(), ErrorKind::StorageFull);
    let mut dropped = NewFile::create(&path, Overwrite::Replace).unwrap();
    dropped.write_all(&vec![0; 100_000]).unwrap();
    assert_eq!(names(folder.path()).len(), 2);
    drop(dropped);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["labels.png"]);

    // A folder cannot be replaced by a file.
    let occupied = folder.path().join("folder");
    fs::create_dir(&occupied).unwrap();
    write(&occupied, "text", Overwrite::Replace).unwrap_err();
    assert_eq!(names(folder.path()), ["folder", "labels.png"]);
    write(&folder.path().join("none/file"), "text", Overwrite::Replace).unwrap_err();
}

#[test]
fn a_writer_may_replace_the_temporary_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tensors");
    write_by_path(&path, Overwrite::Refuse, |temporary| {
        let other = temporary.with_extension("other");
        fs::write(&other, "tensors")?;
        fs::rename(other, temporary)
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"tensors");
    assert_eq!(names(folder.path()), ["tensors"]);
}

#[test]
fn missing_folders_are_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/file");
    make_folder_of(&path).unwrap();
    make_folder_of(&path).unwrap();
    write(&path, "text", Overwrite::Refuse).unwrap();
    make_folder_of(Path::new("bare")).unwrap();
    assert!(!Path::new("bare").exists());
}

#[test]
fn temporary_files_of_a_killed_process_are_found_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    let mut mine = NewFile::create(&in_folder("labels.png"), Overwrite::Refuse).unwrap();
    let temporary = mine.written().unwrap().to_owned();
    for name in [".zeg-1-abc.tmp", ".zeg-segment.jsonl", "x.tmp"] {
        fs::write(in_folder(name), "text").unwrap();
    }
    fs::create_dir(in_folder(".zeg-2-folder.tmp")).unwrap();
    assert_eq!(remove_temporaries(folder.path(), &[]), 0);
    let this = std::process::id();
    assert_eq!(remove_temporaries(folder.path(), &[this]), 1);
    assert!(!temporary.exists());
    drop(mine);
    assert_eq!(remove_temporaries(folder.path(), &[2, 1]), 1);
    let left = [".zeg-2-folder.tmp", ".zeg-segment.jsonl", "x.tmp"];
    assert_eq!(names(folder.path()), left);
    assert_eq!(remove_temporaries(&in_folder("nowhere"), &[this]), 0);
}

#[test]
fn a_finished_download_is_moved_to_its_final_path() {
    let folder = tempfile::tempdir().unwrap();
    let (part, whole) = (folder.path().join("a.part"), folder.path().join("a"));
    fs::write(&whole, "old").unwrap();
    let mut file = fs::File::create(&part).unwrap();
    file.write_all(b"new").unwrap();
    put_in_place(file, &part, &whole).unwrap();
    assert_eq!(fs::read(&whole).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["a"]);
}

#[cfg(unix)]
mod permissions {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_new_file_has_the_default_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let ordinary = folder.path().join("ordinary");
        fs::write(&ordinary, "").unwrap();
        let streamed = folder.path().join("streamed");
        write(&streamed, "text", Overwrite::Refuse).unwrap();
        assert_eq!(mode(&streamed), mode(&ordinary));
        let by_path = folder.path().join("by-path");
        // Temporary files are private by default, and so is the one that this writer creates.
        let fill = |temporary: &Path| {
            let private = tempfile::NamedTempFile::new_in(folder.path())?;
            private.persist(temporary).map_err(|failed| failed.error)?;
            Ok(())
        };
        write_by_path(&by_path, Overwrite::Refuse, fill).unwrap();
        assert_eq!(mode(&by_path), mode(&ordinary));
    }

    #[test]
    fn a_file_that_replaces_another_inherits_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for old in [0o600, 0o444, 0o664, 0o755] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(old)).unwrap();
            write(&path, "new", Overwrite::Replace).unwrap();
            assert_eq!(
                (mode(&path), fs::read(&path).unwrap()),
                (old, b"new".into())
            );
            let fill = |temporary: &Path| fs::write(temporary, "newer");
            write_by_path(&path, Overwrite::Replace, fill).unwrap();
            assert_eq!(
                (mode(&path), fs::read(&path).unwrap()),
                (old, b"newer".into())
            );
            fs::remove_file(&path).unwrap();
        }
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut private = NewFile::create(&path, Overwrite::Replace).unwrap();
        let temporary = private.written().unwrap().to_owned();
        assert_eq!(
            mode(&temporary),
            0o600,
            "the temporary file is as private as the file that it replaces"
        );
    }

    #[test]
    fn a_device_is_never_replaced() {
        use std::os::unix::fs::FileTypeExt as _;
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        symlink("/dev/null", &link).unwrap();
        for path in [Path::new("/dev/null"), link.as_path()] {
            let error = write(path, "new", Overwrite::Replace).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let null = fs::metadata("/dev/null").unwrap().file_type();
        assert!(null.is_char_device());
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (link, origin) = (folder.path().join("link"), folder.path().join("origin"));
        fs::write(&origin, "origin").unwrap();
        symlink(&origin, &link).unwrap();
        write(&link, "new", Overwrite::Replace).unwrap();
        assert_eq!(fs::read(&origin).unwrap(), b"origin");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());

        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        let refused = write(&dangling, "new", Overwrite::Refuse).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    }
    #[test]
    fn a_link_is_written_through_on_request_and_a_dead_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (link, origin) = (folder.path().join("link"), folder.path().join("origin"));
        fs::write(&origin, "origin").unwrap();
        symlink(&origin, &link).unwrap();
        let behind = behind_link(&link, Overwrite::Replace).unwrap();
        assert_eq!(behind, fs::canonicalize(&origin).unwrap());
        assert_eq!(behind_link(&link, Overwrite::Refuse).unwrap(), link);
        assert_eq!(behind_link(&origin, Overwrite::Replace).unwrap(), origin);
        let free = folder.path().join("free");
        assert_eq!(behind_link(&free, Overwrite::Replace).unwrap(), free);

        let dangling = folder.path().join("dangling");
        symlink(folder.path().join("nowhere"), &dangling).unwrap();
        let refused = behind_link(&dangling, Overwrite::Replace).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert!(refused.to_string().contains("nowhere"), "{refused}");
    }
}
