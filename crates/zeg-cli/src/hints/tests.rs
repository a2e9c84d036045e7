//! Tests of the hints.

use std::io;

use super::*;

#[test]
fn the_hint_for_a_file_that_cannot_be_written_follows_the_error() {
    let hint_for = |kind: io::ErrorKind| {
        let (path, source) = ("new/x.safetensors".into(), io::Error::from(kind));
        hint(&WeightsError::Write { path, source }.into()).unwrap()
    };
    assert!(hint_for(io::ErrorKind::NotFound).contains("create it"));
    assert!(hint_for(io::ErrorKind::PermissionDenied).contains("may write to"));
    assert!(hint_for(io::ErrorKind::StorageFull).contains("disk space"));
}
