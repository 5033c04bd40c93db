//! Files that lie in a dataset of an archive: those count which its log says, not those that are there.
//!
//! After a compaction the old files lie beside the new for a while, and unfinished work lies there
//! too; a plain listing would read rows twice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path as FsPath;

use object_store::path::Path;
use tidemill_archive::Catalog;
use tidemill_archive::name::LOG_FOLDER;
use tidemill_engine::storage::Location;

use super::{FileRef, Place};

/// Replaces the listed files of every dataset that has a log by those that its snapshot has; of these
/// only what `chosen` takes, by its name relative to `prefix`, the folder that was listed.
pub async fn settle(
    files: Vec<FileRef>,
    prefix: &Location,
    local: Option<&FsPath>,
    chosen: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Vec<FileRef>, String> {
    let mut roots: BTreeMap<String, bool> = BTreeMap::new();
    for file in &files {
        let root = root(&full(prefix, &file.name));
        if let Entry::Vacant(unknown) = roots.entry(root) {
            let dataset = dataset(prefix, unknown.key())?;
            unknown.insert(dataset.state().await.map_err(|e| e.to_string())?.version > 0);
        }
    }
    if roots.values().all(|logged| !logged) {
        return Ok(files);
    }
    let mut settled: Vec<FileRef> =
        files.into_iter().filter(|f| !roots[&root(&full(prefix, &f.name))]).collect();
    let base = prefix.path.as_ref();
    for root in roots.iter().filter(|(_, logged)| **logged).map(|(root, _)| root) {
        let snapshot = dataset(prefix, root)?.snapshot().await.map_err(|e| e.to_string())?;
        for file in snapshot.files() {
            let path = snapshot.path(file).map_err(|e| e.to_string())?;
            let inside = if base.is_empty() { Some(path.as_ref()) } else { path.as_ref().strip_prefix(base) };
            let Some(name) = inside.map(|rest| rest.trim_start_matches('/').to_owned()) else { continue };
            if name.is_empty() || !chosen(&name) {
                continue;
            }
            let (display, place) = match local {
                Some(folder) => {
                    let path = folder.join(&name);
                    (path.display().to_string(), Place::Local(path))
                }
                None => {
                    let display = format!("{}/{name}", prefix.display.trim_end_matches('/'));
                    (display, Place::Remote(prefix.store.clone(), path))
                }
            };
            settled.push(FileRef { name, display, size: file.bytes, place });
        }
    }
    Ok(settled)
}

fn full(prefix: &Location, name: &str) -> String {
    match prefix.path.as_ref() {
        "" => name.to_owned(),
        base => format!("{base}/{name}"),
    }
}

/// The folder above the Hive folders.
fn root(path: &str) -> String {
    let folders: Vec<&str> = path.split('/').collect();
    let folders = &folders[..folders.len().saturating_sub(1)];
    let end = folders.iter().position(|f| f.contains('=')).unwrap_or(folders.len());
    folders[..end].join("/")
}

fn dataset(prefix: &Location, root: &str) -> Result<tidemill_archive::Dataset, String> {
    let path = Path::parse(root).map_err(|e| e.to_string())?;
    let display = format!("{root}/{LOG_FOLDER}");
    Ok(Catalog::at(Location { store: prefix.store.clone(), path, display, local: prefix.local }).as_dataset())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use tidemill_archive::{Layout, RangeKey, RangeWriter, WriteOptions};
    use tidemill_engine::row;

    use super::super::list;
    use super::*;

    #[tokio::test]
    async fn replaced_and_unfinished_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path();
        let schema = Arc::new(Schema::new(vec![
            Field::new("ts", row::ts_type(), false),
            Field::new("n", DataType::Int64, false),
        ]));
        let dataset = Catalog::open("archive", base).unwrap().dataset("trades").unwrap();
        dataset.create_or_open(&Layout::new(&schema, &["date"])).await.unwrap();
        for n in [1, 2] {
            let mut writer = RangeWriter::new(&dataset, "s", RangeKey::all(), 0, 10, WriteOptions::default())
                .await
                .unwrap();
            let columns: Vec<arrow::array::ArrayRef> =
                vec![row::ts_array(vec![5]), Arc::new(Int64Array::from(vec![n]))];
            writer.write(RecordBatch::try_new(schema.clone(), columns).unwrap()).await.unwrap();
            writer.finish(true).await.unwrap();
        }
        let day = base.join("archive/trades/date=1970-01-01");
        std::fs::write(day.join("zz-0000.tm.parquet"), b"half").unwrap();
        std::fs::write(day.join("foreign.parquet"), b"x").unwrap();
        assert_eq!(std::fs::read_dir(&day).unwrap().count(), 4);
        let live: Vec<String> =
            dataset.snapshot().await.unwrap().files().iter().map(|f| f.path.clone()).collect();
        assert_eq!(live.len(), 2);
        for (url, cut) in [
            ("archive/trades", ""),
            ("archive/trades/date=1970-01-01", "date=1970-01-01/"),
            ("archive/trades/**/*.parquet", ""),
            ("archive/trades/date=*/*.parquet", ""),
        ] {
            let found = list(url, base, &[".parquet"]).await.unwrap();
            let names: Vec<String> = found.iter().map(|f| format!("{cut}{}", f.name)).collect();
            assert_eq!(names, live, "{url}");
            for file in found {
                let Place::Local(path) = file.place else { panic!("{}", file.display) };
                assert!(path.is_file());
            }
        }
        assert_eq!(list("archive/*/date=1970-01-01/*.parquet", base, &[]).await.unwrap().len(), 2);
    }
}
