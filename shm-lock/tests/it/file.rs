//! What is special about the lock on a file: the file.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use shm_lock::{AcquireError, FileLock, Wait};

use crate::harness::tests;
use crate::peer::{Peer, Place};

tests![
    the_file_is_made_for_its_owner_only,
    a_file_that_was_replaced_is_locked_anew,
    an_empty_file_is_taken_and_a_foreign_one_refused_and_kept,
    what_is_no_file_is_an_error_and_not_a_hang,
    a_file_that_cannot_be_made_is_named,
];

fn the_file_is_made_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let lock = FileLock::new(place.file());
    assert!(!lock.path().exists(), "nothing is opened before it is needed");
    drop(lock.try_acquire().expect("the lock is free"));
    let mode = fs::metadata(place.file()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777 & !0o600, 0, "{mode:o}");
}

fn a_file_that_was_replaced_is_locked_anew() {
    let place = Place::new();
    let lock = FileLock::new(place.file());
    let mut old = Peer::spawn("file", &place.file());
    old.expect("acquire", "held");
    assert!(lock.try_acquire().is_err());
    fs::remove_file(place.file()).expect("the folder is ours");
    let new = lock.try_acquire().expect("nobody has locked the new file");
    assert!(new.recovered().is_none());
    let mut other = Peer::spawn("file", &place.file());
    other.expect("try", "taken");
    // Letting go of the old one does not touch the new one.
    old.expect("release", "released");
    other.expect("try", "taken");
    drop(new);
    other.expect("try", "held");
}

fn an_empty_file_is_taken_and_a_foreign_one_refused_and_kept() {
    let place = Place::new();
    fs::write(place.file(), "").expect("the folder is ours");
    let lock = FileLock::new(place.file());
    assert!(lock.holder().is_none());
    let guard = lock.try_acquire().expect("the lock is free");
    assert!(guard.recovered().is_none());
    let holder = lock.holder().expect("it is held");
    assert_eq!((holder.pid, holder.id), (std::process::id(), 1));
    drop(guard);
    assert_eq!(lock.try_acquire().map(drop).ok(), Some(()));
    for text in ["short", "something else entirely, and long enough"] {
        fs::write(place.file(), text).expect("the folder is ours");
        let error = lock.try_acquire().expect_err("it is no lock file");
        assert!(matches!(error, AcquireError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("not a lock file"), "{error}");
        assert_eq!(fs::read_to_string(place.file()).expect("it is there"), text);
    }
}

fn what_is_no_file_is_an_error_and_not_a_hang() {
    let place = Place::new();
    let path = place.file();
    let refused = |path: &std::path::Path| {
        let lock = FileLock::new(path);
        assert!(lock.holder().is_none());
        match lock.acquire(&Wait::forever()).map(drop) {
            Err(AcquireError::File { path: named, .. }) => assert_eq!(named, path),
            other => panic!("it cannot be locked, but: {other:?}"),
        }
    };
    refused(place.folder());
    symlink("elsewhere", &path).expect("the folder is ours");
    refused(&path);
    fs::remove_file(&path).expect("the folder is ours");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo exists");
    assert!(made.success());
    refused(&path);
}

fn a_file_that_cannot_be_made_is_named() {
    let lock = FileLock::new("/nonexistent/folder/lock");
    let refused = lock.try_acquire().map(drop).expect_err("there is no such folder");
    assert_eq!(refused.to_string(), "cannot open lock file `/nonexistent/folder/lock`");
    let reason = std::error::Error::source(&refused).expect("the kernel gave one").to_string();
    assert!(reason.starts_with("No such file"), "{reason}");
}
