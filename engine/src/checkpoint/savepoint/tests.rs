use proptest::prelude::*;

use super::*;
use crate::checkpoint::manifest::{Reason, StateFile};

fn store(folder: &std::path::Path, keep: usize) -> CheckpointStore {
    let location = crate::storage::open(folder.to_str().unwrap(), folder).unwrap();
    CheckpointStore::new(location, "j", keep)
}

fn name(text: &str) -> SavepointName {
    text.parse().unwrap()
}

/// Writes checkpoint `id` with a state file of its own.
async fn checkpoint(store: &CheckpointStore, id: u64, run: u64, start: u64) -> Manifest {
    let path = store.put_state(id, start, "sum", 0, vec![id as u8; 3]).await.unwrap();
    let manifest = Manifest {
        id,
        content: id,
        job: "j".into(),
        generation: id,
        run,
        start,
        follows: Vec::new(),
        committed_at: String::new(),
        reason: Reason::Interval,
        workers: 1,
        graph: serde_json::Value::Null,
        sources: Default::default(),
        state: [("sum".to_owned(), vec![StateFile { path, bytes: 3, keys: 1 }])].into(),
        sinks: Default::default(),
        former: Default::default(),
    };
    store.commit(&manifest).await.unwrap();
    manifest
}

#[test]
fn names_are_file_names() {
    for good in ["before-upgrade", "2026-12-01", "v1.2_b"] {
        assert_eq!(good.parse::<SavepointName>().unwrap().to_string(), good);
    }
    for bad in ["", ".hidden", "a/b", "a b", "ä", &"x".repeat(101)] {
        assert!(bad.parse::<SavepointName>().is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_savepoint_outlives_the_checkpoints_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 2);
    assert!(store.pin(&name("early"), false).await.unwrap().is_none(), "there is nothing to pin");
    checkpoint(&store, 1, 7, 100).await;
    let pinned = store.pin(&name("one"), false).await.unwrap().unwrap();
    for id in 2..8 {
        checkpoint(&store, id, 7, 100 + id).await;
        store.prune().await.unwrap();
    }
    assert_eq!(store.ids().await.unwrap(), [6, 7]);
    let found = store.savepoint(&name("one")).await.unwrap();
    assert_eq!((found.id, store.lacks(&found).await.unwrap()), (pinned.id, None));
    // The starts whose checkpoints are gone: their decisions hold for rows that are read again.
    assert_eq!(store.starts_since(&name("one")).await.unwrap(), (102..106).chain([100]).collect());
    // Nothing else is left behind.
    assert_eq!(store.savepoints().await.unwrap().len(), 1);
    assert!(store.unpin(&name("one")).await.unwrap() && !store.unpin(&name("one")).await.unwrap());
    checkpoint(&store, 8, 7, 108).await;
    store.prune().await.unwrap();
    assert!(store.lacks(&found).await.unwrap().is_some(), "what nothing names any more is removed");
    assert!(store.starts_since(&name("one")).await.unwrap().is_empty());
    assert!(matches!(store.savepoint(&name("one")).await, Err(CheckpointError::NoSavepoint { .. })));
}

#[tokio::test]
async fn a_name_is_given_once_unless_it_is_to_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), 9);
    checkpoint(&store, 1, 7, 1).await;
    store.pin(&name("a"), false).await.unwrap();
    // The same again: an answer may have been lost.
    store.pin(&name("a"), false).await.unwrap();
    checkpoint(&store, 2, 7, 1).await;
    assert!(matches!(store.pin(&name("a"), false).await, Err(CheckpointError::NameTaken { .. })));
    assert_eq!(store.savepoint(&name("a")).await.unwrap().id, 1);
    store.pin(&name("a"), true).await.unwrap();
    assert_eq!(store.savepoint(&name("a")).await.unwrap().id, 2);
}

proptest! {
    /// Whatever is written, pinned, unpinned and pruned: checkpoints that are kept and savepoints have all their files, and decisions of
    /// starts that one of them may need are there.
    #[test]
    fn what_can_be_begun_from_is_whole(steps in proptest::collection::vec((0u8..10, 0usize..3), 1..40)) {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path(), 2);
            let names = ["a", "b", "c"].map(name);
            let (mut id, mut start) = (0, 1);
            for (step, n) in steps {
                match step {
                    0..=4 => {
                        id += 1;
                        checkpoint(&store, id, 7, start).await;
                        store.prune().await.unwrap();
                    }
                    5 => {
                        start += 1;
                        store.put_decisions(start, "0-0", &[]).await.unwrap();
                    }
                    6 | 7 => drop(store.pin(&names[n], true).await.unwrap()),
                    8 => drop(store.unpin(&names[n]).await.unwrap()),
                    _ => store.prune().await.unwrap(),
                }
            }
            let pinned = store.savepoints().await.unwrap();
            for manifest in store.manifests().await.unwrap().iter().chain(pinned.values()) {
                assert_eq!(store.lacks(manifest).await.unwrap(), None, "{}", manifest.id);
            }
            // Every start since the oldest savepoint that has committed anything is known to it.
            for (name, savepoint) in &pinned {
                let known = store.starts_since(&name.parse().unwrap()).await.unwrap();
                let kept: BTreeSet<u64> = store.manifests().await.unwrap().iter().map(|m| m.start).collect();
                let needed: BTreeSet<u64> = known.union(&kept).copied().chain([savepoint.start]).collect();
                let there: BTreeSet<u64> = store.decision_files().await.unwrap().into_iter().map(|d| d.start).collect();
                for s in savepoint.start..=start {
                    let committed = needed.contains(&s);
                    assert!(!committed || s == 1 || there.contains(&s), "{s} of {needed:?}: {there:?}");
                }
            }
        });
    }
}
