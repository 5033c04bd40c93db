use super::*;

fn limited(memory: u64, folder: Option<&Path>) -> StateMemory {
    open(memory, folder).unwrap()
}

fn open(memory: u64, folder: Option<&Path>) -> Result<StateMemory, StateMemoryError> {
    let spill = folder.map(|folder| folder.display().to_string());
    StateMemory::open(&StateOptions { memory: Some(Size::from_bytes(memory)), spill }, "job-0")
}

#[test]
fn without_a_folder_too_much_state_fails_and_says_what_to_set() {
    let memory = limited(1000, None);
    let mut one = memory.part("ema", true).unwrap().unwrap();
    let mut other = memory.part("bars", false).unwrap().unwrap();
    one.report(600).unwrap();
    other.report(400).unwrap();
    let error = one.report(601).unwrap_err().to_string();
    assert!(error.contains("state.memory: 1kB") && error.contains("state.spill"), "{error}");
    // What an instance held is free when it is gone.
    drop(one);
    other.report(1000).unwrap();
}

#[test]
fn an_instance_may_use_its_share_and_what_others_leave() {
    let folder = tempfile::tempdir().unwrap();
    let memory = limited(4000, Some(folder.path()));
    let mut one = memory.part("ema", true).unwrap().unwrap();
    let mut other = memory.part("rsi", true).unwrap().unwrap();
    // A quarter is for the store.
    assert_eq!(one.report(0).unwrap(), 3000);
    assert_eq!(other.report(1000).unwrap(), 3000);
    assert_eq!(one.report(2500).unwrap(), 2000);
    assert_eq!(other.report(2500).unwrap(), 1500);
}

#[test]
fn a_node_that_cannot_spill_is_named_when_it_alone_takes_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let memory = limited(4000, Some(folder.path()));
    let mut bars = memory.part("bars", false).unwrap().unwrap();
    bars.report(3000).unwrap();
    let error = bars.report(3001).unwrap_err().to_string();
    assert!(error.contains("`bars`") && error.contains("state.memory"), "{error}");
}

#[test]
fn a_folder_belongs_to_one_process_and_holds_nothing_that_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let first = limited(1 << 20, Some(folder.path()));
    let part = first.part("ema", true).unwrap().unwrap();
    let mut writes = part.table().unwrap().writes();
    writes.put(b"00key", b"state").unwrap();
    writes.commit().unwrap();
    let error = open(1 << 20, Some(folder.path())).unwrap_err();
    assert!(matches!(error, StateMemoryError::InUse(_)), "{error}");
    drop((part, first));
    assert!(!folder.path().join("job-0/store").exists());
    // What a killed process has left is not read.
    std::fs::create_dir_all(folder.path().join("job-0/store/keyspaces")).unwrap();
    let again = limited(1 << 20, Some(folder.path()));
    let part = again.part("ema", true).unwrap().unwrap();
    assert_eq!(part.table().unwrap().get(b"00key").unwrap(), None);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = open(1 << 20, Some(&file.path().join("below"))).unwrap_err().to_string();
    assert!(error.contains("below") && error.contains("state.spill"), "{error}");
}

#[test]
fn a_view_is_the_table_at_its_instant() {
    let folder = tempfile::tempdir().unwrap();
    let memory = limited(1 << 20, Some(folder.path()));
    let part = memory.part("ema", true).unwrap().unwrap();
    let table = part.table().unwrap();
    let put = |rows: &[(&[u8], &[u8])]| {
        let mut writes = table.writes();
        rows.iter().for_each(|(key, value)| writes.put(key, value).unwrap());
        writes.commit().unwrap();
    };
    put(&[(&[0, 1, 5], b"a"), (&[0, 2, 5], b"b"), (&[0, 1, 4], b"c")]);
    let view = table.view();
    put(&[(&[0, 1, 5], b"later"), (&[0, 1, 9], b"later")]);
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        view.group(1).map(|row| row.unwrap()).map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert_eq!(rows, [(vec![0, 1, 4], b"c".to_vec()), (vec![0, 1, 5], b"a".to_vec())]);
    assert_eq!(table.get(&[0, 1, 5]).unwrap().as_deref(), Some(&b"later"[..]));
}
