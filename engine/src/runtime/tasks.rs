//! Tasks of connectors, and how a run waits for their end.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};

/// A task that takes longer to end is reported.
const SLOW: Duration = Duration::from_secs(10);

/// The tasks of a run's sinks, or of its sources.
#[derive(Debug, Default)]
pub struct Tasks(Mutex<Vec<Task>>);

#[derive(Debug)]
struct Task {
    node: String,
    /// Ends when the connector has.
    handle: JoinHandle<()>,
    connector: AbortHandle,
}

impl Tasks {
    /// Adds a task of `node` that ends when `connector` has.
    pub fn add(&self, node: &str, handle: JoinHandle<()>, connector: AbortHandle) {
        let task = Task { node: node.to_owned(), handle, connector };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Waits until all have ended, at most so long; the nodes of those that have not. These are aborted, but a thread that one
    /// of them has left to write may go on.
    pub async fn end(&self, at_most: Duration) -> Vec<String> {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let first = SLOW.min(at_most);
        for (patience, last) in [(first, false), (at_most.saturating_sub(first), true)] {
            let all = async {
                for task in &mut tasks {
                    if !task.handle.is_finished() {
                        let _ = (&mut task.handle).await;
                    }
                }
            };
            if tokio::time::timeout(patience, all).await.is_ok() {
                return Vec::new();
            }
            tasks.retain(|task| !task.handle.is_finished());
            if !last {
                let nodes = names(&tasks).join(", ");
                tracing::warn!(nodes, "connectors take long to end; the run waits for them");
            }
        }
        tasks.iter().for_each(|task| task.connector.abort());
        names(&tasks)
    }
}

fn names(tasks: &[Task]) -> Vec<String> {
    let mut names: Vec<String> = tasks.iter().map(|task| task.node.clone()).collect();
    names.sort();
    names.dedup();
    names
}
