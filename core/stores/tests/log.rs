//! The event log: order, torn tails, damage, fencing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshfold_core::event::Event;
use meshfold_stores::error::StoreError;
use meshfold_stores::log::{EventLog, Mode, SEGMENT_BYTES, SchemaMark};
use proptest::prelude::*;

fn mark(version: u32) -> SchemaMark {
    SchemaMark {
        id: *b"schema01",
        version,
        name: "bytes".into(),
    }
}

fn events(sizes: &[usize], from: u64) -> Vec<Arc<Event>> {
    let make = |(place, size): (usize, &usize)| {
        Arc::new(Event {
            route: *b"route001",
            producer: *b"producer",
            incarnation: *b"life0001",
            seq: from + place as u64,
            payload: Some(vec![(place % 251) as u8 + 1; *size].into()),
            ..Event::default()
        })
    };
    sizes.iter().enumerate().map(make).collect()
}

fn open(path: &Path, mode: Mode) -> Result<EventLog, StoreError> {
    EventLog::open(path, &mark(1), mode, SEGMENT_BYTES)
}

fn numbers(log: &mut EventLog) -> Vec<u64> {
    let rows = log.read(1, usize::MAX, usize::MAX).unwrap();
    for (index, event) in &rows {
        assert_eq!(*index, event.seq);
    }
    rows.into_iter().map(|row| row.0).collect()
}

fn only_file(directory: &Path) -> PathBuf {
    let mut logs = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|x| x == "log"));
    let found = logs.next().unwrap();
    assert!(logs.next().is_none());
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_appended_is_read_in_order_over_many_files_and_openings(
        appends in prop::collection::vec((prop::collection::vec(0usize..300, 1..6), any::<bool>()), 1..12),
        from in 1u64..40,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let small = |mode| EventLog::open(directory.path(), &mark(1), mode, 500).unwrap();
        let mut log = small(Mode::Write);
        let mut all = Vec::new();
        for (sizes, reopen) in appends {
            let next = all.len() as u64 + 1;
            let some = events(&sizes, next);
            prop_assert_eq!(log.append(&some).unwrap(), next);
            all.extend(some);
            if reopen {
                drop(log);
                log = small(Mode::Write);
            }
            prop_assert_eq!(log.next(), all.len() as u64 + 1);
        }
        let read = small(Mode::Read).read(from, 7, usize::MAX).unwrap();
        let wanted: Vec<_> = (from..).zip(all.iter().skip(from as usize - 1)).take(7).collect();
        prop_assert_eq!(read.len(), wanted.len());
        for ((index, event), (number, expected)) in read.iter().zip(wanted) {
            prop_assert_eq!(*index, number);
            prop_assert_eq!(event, &**expected);
        }
    }

    #[test]
    fn a_log_cut_anywhere_loses_only_its_last_append(
        sizes in prop::collection::vec(0usize..300, 1..6), last in prop::collection::vec(0usize..2000, 1..4),
        share in 0u64..1000, zeroed in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path(), Mode::Write).unwrap();
        log.append(&events(&sizes, 1)).unwrap();
        let path = only_file(directory.path());
        let before = fs::metadata(&path).unwrap().len();
        let kept = sizes.len() as u64;
        // As after a kill: no orderly close.
        log.append(&events(&last, kept + 1)).unwrap();
        std::mem::forget(log);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(directory.path().join("lock")).unwrap();
        let cut = before + (whole.len() as u64 - before) * share / 1000;
        let mut bytes = whole[..cut as usize].to_vec();
        if zeroed {
            bytes.resize(whole.len(), 0);
        }
        fs::write(&path, &bytes).unwrap();
        match open(directory.path(), Mode::Write) {
            Ok(mut log) => {
                let found = numbers(&mut log);
                prop_assert!(found.len() as u64 >= kept, "{found:?} of {kept}");
                let next = log.next();
                prop_assert_eq!(log.append(&events(&[5], next)).unwrap(), next);
                prop_assert_eq!(*numbers(&mut log).last().unwrap(), next);
            }
            // Zeros within one sector cannot be told from rot: refusing is right, losing what was kept is not.
            Err(StoreError::Damaged(_, offset, _)) => prop_assert!(zeroed && offset >= before),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn a_changed_byte_is_never_read_as_data(
        sizes in prop::collection::vec(1usize..300, 2..8), share in 0u64..1000, flip in 1u8..=255,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path(), Mode::Write).unwrap();
        for (place, size) in sizes.iter().enumerate() {
            log.append(&events(&[*size], place as u64 + 1)).unwrap();
        }
        drop(log);
        let path = only_file(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.len() * share as usize / 1000;
        bytes[place] ^= flip;
        fs::write(&path, &bytes).unwrap();
        let found = open(directory.path(), Mode::Write);
        prop_assert!(matches!(found, Err(StoreError::Damaged(..))), "byte {place}");
    }
}

#[test]
fn a_second_writer_is_refused_and_a_fenced_one_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = open(directory.path(), Mode::Write).unwrap();
    old.append(&events(&[1, 1], 1)).unwrap();
    let refused = open(directory.path(), Mode::Write);
    assert!(matches!(refused, Err(StoreError::Locked(_))));
    let mut new = open(directory.path(), Mode::TakeOver).unwrap();
    assert_eq!(new.token(), old.token() + 1);
    let fenced = old.append(&events(&[1], 3));
    assert!(matches!(fenced, Err(StoreError::Fenced(_, 1, 2))));
    assert_eq!(new.append(&events(&[7], 3)).unwrap(), 3);
    assert_eq!(numbers(&mut new), [1, 2, 3]);
    drop((old, new));
    let mut log = open(directory.path(), Mode::Write).unwrap();
    assert_eq!(numbers(&mut log), [1, 2, 3]);
}

#[test]
fn what_a_fenced_writer_added_behind_the_check_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = open(directory.path(), Mode::Write).unwrap();
    old.append(&events(&[1], 1)).unwrap();
    let path = only_file(directory.path());
    let record = fs::read(&path).unwrap();
    let mut new = open(directory.path(), Mode::TakeOver).unwrap();
    new.append(&events(&[9], 2)).unwrap();
    // The old writer was between its first check and its write.
    let mut late = OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut late, &record[record.len() - 60..]).unwrap();
    drop((old, new));
    let mut log = open(directory.path(), Mode::Write).unwrap();
    assert_eq!(numbers(&mut log), [1, 2]);
}

#[test]
fn another_schema_is_refused_and_so_is_a_tail_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = open(directory.path(), Mode::Write).unwrap();
    log.append(&events(&[1, 2], 1)).unwrap();
    log.close().unwrap();
    let refused = log.append(&events(&[1], 3));
    assert!(matches!(refused, Err(StoreError::Closed(_))));
    let other = EventLog::open(directory.path(), &mark(2), Mode::Write, SEGMENT_BYTES);
    assert!(matches!(other, Err(StoreError::Schema(_, _, 1, _))));
    let path = only_file(directory.path());
    let size = fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size - 1)
        .unwrap();
    let cut = open(directory.path(), Mode::Write);
    assert!(matches!(cut, Err(StoreError::Damaged(..))));
}

#[test]
fn old_files_are_forgotten_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = EventLog::open(directory.path(), &mark(1), Mode::Write, 400).unwrap();
    for seq in 1..=20 {
        log.append(&events(&[100], seq)).unwrap();
    }
    let first = log.forget_before(11).unwrap();
    assert!((2..=11).contains(&first), "{first}");
    assert_eq!(numbers(&mut log), (first..=20).collect::<Vec<_>>());
}
