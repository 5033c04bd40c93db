//! This sink's rows in files that compaction has made, by the dataset's log.
//!
//! Such files bear no names of the sink's own, so what an earlier run left is not seen in the folder
//! alone. The log has the largest checkpoint number and generation of each file's rows.

use tidemill_archive::{ArchiveError, Catalog, Change, Origin};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::sink::SinkContext;
use tidemill_engine::storage::Location;

use super::name;

fn failed(error: ArchiveError) -> ConnectorError {
    match error.is_passing() {
        true => ConnectorError::Transient(error.to_string()),
        false => ConnectorError::Fatal(error.to_string()),
    }
}

/// Compacted files of earlier runs. Rows behind the checkpoint that this run goes on from cannot be
/// taken out of a compacted file: going back there is refused.
pub async fn find(location: &Location, cx: &SinkContext) -> Result<Vec<String>, ConnectorError> {
    let dataset = Catalog::at(location.clone()).as_dataset();
    let state = dataset.state().await.map_err(failed)?;
    let own = name::writer(&cx.job, &cx.name);
    let mut earlier = Vec::new();
    for file in state.files.values() {
        let Origin::Sink { writer, after, generation } = &file.origin else { continue };
        if *writer != own {
            continue;
        }
        if *generation < cx.run {
            earlier.push(file.path.clone());
        } else if cx.replayable && *after >= cx.start_checkpoint && *generation < cx.generation {
            return Err(ConnectorError::Fatal(format!(
                "rows that `{}` wrote after checkpoint {} have been compacted in `{}` (up to those after checkpoint {after}), so \
                 the job cannot go back to it: start from a checkpoint above {after}, or begin from nothing (--from none) with \
                 `existing: replace`",
                cx.name, cx.start_checkpoint, location.display
            )));
        }
    }
    Ok(earlier)
}

/// Removes compacted files from the dataset; `tidemill archive expire` deletes them.
pub async fn remove(location: &Location, paths: Vec<String>) -> Result<(), ConnectorError> {
    if paths.is_empty() {
        return Ok(());
    }
    let dataset = Catalog::at(location.clone()).as_dataset();
    let state = dataset.state().await.map_err(failed)?;
    let change = Change { by: "parquet sink".into(), remove: paths, ..Change::default() };
    dataset.commit(&state, change).await.map(drop).map_err(failed)
}
