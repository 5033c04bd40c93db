use std::sync::Arc;

use object_store::memory::InMemory;
use tidemill_engine::storage;

use super::super::lines::{Lines, Tail};
use super::super::place::Place;
use super::*;

/// New places of each kind: a folder, a store in memory and, where there is a server, a bucket.
pub(crate) fn places(folder: &tempfile::TempDir, name: &str) -> Vec<Place> {
    let memory = Location {
        store: Arc::new(InMemory::new()),
        path: Path::from("bucket").join(name),
        display: format!("memory:///{name}"),
        local: false,
    };
    let mut places = vec![Place::Local(folder.path().join(name)), Place::Store(memory)];
    places.extend(bucket(name));
    places
}

/// A new place in the S3 server's bucket.
fn bucket(name: &str) -> Option<Place> {
    let Ok(bucket) = std::env::var("TIDEMILL_TEST_S3_BUCKET") else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing may be skipped: no S3");
        eprintln!("SKIPPED, NOT TESTED: no S3: scripts/services start s3");
        return None;
    };
    let url = format!("s3://{bucket}/durable/{:016x}/{name}", rand::random::<u64>());
    Some(Place::Store(storage::open(&url, std::path::Path::new("/")).unwrap()))
}

fn location(place: &Place) -> Option<Location> {
    match place {
        Place::Store(location) => Some(location.clone()),
        Place::Local(_) => None,
    }
}

/// Waits until no more than `count` segments are there.
async fn shrinks_to(location: &Location, count: usize) {
    let shrinks = async {
        while behind(location, 0).await.unwrap().len() > count {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(240), shrinks).await.expect("old segments stay");
}

async fn open(place: &Place) -> (Lines, Vec<u64>) {
    let (mut lines, found) = Lines::open_at::<u64>(place).await.unwrap();
    lines.claim().await.unwrap();
    (lines, found)
}

#[tokio::test]
async fn what_was_synced_is_read_again_wherever_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "log") {
        let mut tail = Tail::new(&place);
        assert_eq!(tail.poll::<u64>().await.unwrap(), [0; 0], "{place}");
        let (mut lines, none) = open(&place).await;
        assert!(none.is_empty(), "{place}");
        lines.append(&[1, 2]).unwrap();
        lines.append(&[3]).unwrap();
        lines.sync().await.unwrap();
        assert_eq!(tail.poll::<u64>().await.unwrap(), [1, 2, 3], "{place}");
        drop(lines);
        let (mut lines, found) = open(&place).await;
        assert_eq!(found, [1, 2, 3], "{place}");
        lines.append(&[4]).unwrap();
        lines.sync().await.unwrap();
        assert_eq!(tail.poll::<u64>().await.unwrap(), [4], "{place}");
        lines.rewrite(&[3, 4]).await.unwrap();
        lines.append(&[5]).unwrap();
        lines.sync().await.unwrap();
        assert!(lines.is_ours().await.unwrap(), "{place}");
        assert_eq!(tail.poll::<u64>().await.unwrap(), [3, 4, 5], "{place}");
        assert_eq!(open(&place).await.1, [3, 4, 5], "{place}");
        assert_eq!(Tail::new(&place).poll::<u64>().await.unwrap(), [3, 4, 5], "{place}");
        if let Some(location) = location(&place) {
            // What the whole segment has is removed: it, 5, and what opening it twice has added stay.
            shrinks_to(&location, 4).await;
        }
    }
}

#[tokio::test]
async fn an_earlier_writer_is_fenced_also_where_its_next_number_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "log").into_iter().skip(1) {
        let (mut old, _) = open(&place).await;
        old.append(&[1]).unwrap();
        old.sync().await.unwrap();
        let mut late = open(&place).await.0;
        assert!(!old.is_ours().await.unwrap(), "{place}");
        let (mut new, found) = open(&place).await;
        assert_eq!(found, [1], "{place}");
        // The number that is next for `old` is taken.
        old.append(&[66]).unwrap();
        assert!(matches!(old.sync().await, Err(ConnectorError::Fenced(_))), "{place}");
        assert!(matches!(old.sync().await, Err(ConnectorError::Transient(_))), "{place}");
        // That of `late` was taken, and is free again.
        new.append(&[2]).unwrap();
        new.sync().await.unwrap();
        new.rewrite(&[1, 2]).await.unwrap();
        shrinks_to(&location(&place).unwrap(), 1).await;
        assert!(!late.is_ours().await.unwrap(), "{place}");
        late.append(&[77]).unwrap();
        assert!(matches!(late.sync().await, Err(ConnectorError::Fenced(_))), "{place}");
        // What it left does no harm.
        new.append(&[3]).unwrap();
        new.sync().await.unwrap();
        assert_eq!(open(&place).await.1, [1, 2, 3], "{place}");
        assert_eq!(Tail::new(&place).poll::<u64>().await.unwrap(), [1, 2, 3], "{place}");
    }
}

#[tokio::test]
async fn many_segments_are_put_into_one_and_a_missing_or_damaged_one_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let place = places(&folder, "log").swap_remove(1);
    let location = location(&place).unwrap();
    let (mut lines, _) = open(&place).await;
    let mut n = 0;
    while !lines.is_long(u64::MAX) {
        lines.append(&[n]).unwrap();
        lines.sync().await.unwrap();
        n += 1;
    }
    let all: Vec<u64> = (0..n).collect();
    assert_eq!(open(&place).await.1, all);
    let (mut lines, _) = open(&place).await;
    lines.rewrite(&all).await.unwrap();
    assert!(!lines.is_long(u64::MAX));
    shrinks_to(&location, 1).await;
    for n in [n, n + 1] {
        lines.append(&[n]).unwrap();
        lines.sync().await.unwrap();
    }
    let numbers = behind(&location, 0).await.unwrap();
    let middle = path(&location, numbers[numbers.len() - 2]);
    let body = location.store.get(&middle).await.unwrap().bytes().await.unwrap();
    location.store.delete(&middle).await.unwrap();
    let error = Lines::open_at::<u64>(&place).await.unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    location.store.put(&middle, PutPayload::from(body.slice(..body.len() - 1))).await.unwrap();
    let error = Lines::open_at::<u64>(&place).await.unwrap_err().to_string();
    assert!(error.contains("is damaged"), "{error}");
    location.store.put(&middle, PutPayload::from(body)).await.unwrap();
    assert_eq!(open(&place).await.1.len() as u64, n + 2);
}

#[tokio::test]
async fn a_segment_whose_answer_was_lost_is_known_as_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    for place in places(&folder, "log") {
        let Some(location) = location(&place) else { continue };
        let (mut segments, _) = Segments::open::<u64>(location.clone()).await.unwrap();
        segments.claim().await.unwrap();
        let put = async |segments: &Segments, writer: u64| {
            let mut body = Vec::new();
            line(&Header { segment: segments.next, writer, whole: false }, &mut body).unwrap();
            line(&1_u64, &mut body).unwrap();
            location.store.put(&path(&location, segments.next), PutPayload::from(body)).await.unwrap();
        };
        put(&segments, segments.writer).await;
        segments.append(&[1_u64]).unwrap();
        segments.sync().await.unwrap();
        segments.append(&[2_u64]).unwrap();
        segments.sync().await.unwrap();
        assert_eq!(open(&place).await.1, [1, 2], "{place}");
        // The same records of another writer are not one's own.
        let (mut segments, _) = Segments::open::<u64>(location.clone()).await.unwrap();
        put(&segments, segments.writer ^ 1).await;
        segments.append(&[1_u64]).unwrap();
        assert!(matches!(segments.sync().await, Err(ConnectorError::Fenced(_))), "{place}");
    }
}
