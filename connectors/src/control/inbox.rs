//! Commands as objects in a folder of object storage: for operators who are on another machine than the job.
//!
//! Each object is a text of commands, as the file is. All that are there count, whatever they are called, in the order in which the store got
//! them. One that was read is known by its name, its tag and its time: written again, it is another. Those that `tidemill control` has put have
//! names that never come again, and are removed once they are in the log; others stay, and cost a line of a list at each look.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use tidemill_engine::clock::{Clock, Stopwatch};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::storage::Location;

use super::switch::{BYTES_MAX, Command};
use crate::broker::place::store_failed;

/// How often the folder is listed.
const LIST_EVERY: Duration = Duration::from_millis(250);
/// Names that begin so never come again.
const OWN: &str = "cli-";

/// What an object is known by once it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// Its name in the folder.
    pub name: String,
    tag: Option<String>,
    modified: i64,
}

impl Object {
    fn of(meta: &ObjectMeta) -> Option<Self> {
        let name = meta.location.filename()?.to_owned();
        let modified = meta.last_modified.timestamp_nanos_opt().unwrap_or_default();
        Some(Self { name, tag: meta.e_tag.clone(), modified })
    }
}

/// The folder, watched.
pub(super) struct Inbox {
    location: Location,
    read: BTreeSet<Object>,
    listed: Option<Stopwatch>,
}

impl Inbox {
    /// The folder at `location`, of which `commands` were read.
    pub fn new(location: Location, commands: &[Command]) -> Self {
        let read = commands.iter().filter_map(|command| command.object.clone()).collect();
        Self { location, read, listed: None }
    }

    /// Objects that were not read yet, with their texts, in the store's order.
    pub async fn look(&mut self, clock: &Clock) -> Result<Vec<(Object, String)>, ConnectorError> {
        if self.listed.as_ref().is_some_and(|listed| listed.elapsed() < LIST_EVERY) {
            return Ok(Vec::new());
        }
        let Location { store, path, display, .. } = &self.location;
        let failed =
            |e: &object_store::Error| store_failed(format!("cannot read commands in `{display}`"), e);
        let found: Vec<ObjectMeta> = store.list(Some(path)).try_collect().await.map_err(|e| failed(&e))?;
        let mut found: Vec<(Object, ObjectMeta)> =
            found.into_iter().filter_map(|meta| Some((Object::of(&meta)?, meta))).collect();
        found.sort_by(|(a, _), (b, _)| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        let there: BTreeSet<&Object> = found.iter().map(|(object, _)| object).collect();
        self.read.retain(|object| there.contains(object));
        let mut news = Vec::new();
        for (object, meta) in found {
            if self.read.contains(&object) {
                // It was put into the log, and the run ended before it was removed.
                self.remove(&object).await;
                continue;
            }
            if meta.size > BYTES_MAX {
                return Err(ConnectorError::Fatal(format!(
                    "`{display}/{}` has {} bytes, a text of commands at most {BYTES_MAX}: remove it",
                    object.name, meta.size
                )));
            }
            let same = GetOptions { if_match: meta.e_tag.clone(), ..Default::default() };
            let body = match store.get_opts(&meta.location, same).await {
                Ok(found) => found.bytes().await.map_err(|e| failed(&e))?,
                // Written again since the list: what it is now is seen at the next look.
                Err(object_store::Error::NotFound { .. } | object_store::Error::Precondition { .. }) => {
                    continue;
                }
                Err(e) => return Err(failed(&e)),
            };
            news.push((object, String::from_utf8_lossy(&body).into_owned()));
        }
        self.listed = Some(clock.start());
        Ok(news)
    }

    /// These are in the log.
    pub async fn logged(&mut self, objects: Vec<Object>) {
        for object in objects {
            self.remove(&object).await;
            self.read.insert(object);
        }
    }

    /// Removes an object that is in the log, should it be one of ours. What cannot be removed now is removed at the next look.
    async fn remove(&self, object: &Object) {
        if object.name.starts_with(OWN) {
            let path = self.location.path.clone().join(object.name.as_str());
            let _ = self.location.store.delete(&path).await;
        }
    }
}

/// Puts a text of commands into the folder at `location`; its name.
pub async fn put(location: &Location, text: &str, now: i64) -> Result<String, ConnectorError> {
    let name = format!("{OWN}{now:020}-{:016x}", rand::random::<u64>());
    let path = location.path.clone().join(name.as_str());
    let options = PutOptions { mode: PutMode::Create, ..Default::default() };
    let put = location.store.put_opts(&path, PutPayload::from(text.to_owned()), options).await;
    match put {
        // The answer was lost, and it was put again.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            Ok(name)
        }
        Err(e) => Err(store_failed(format!("cannot put a command into `{}`", location.display), &e)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::switch::commands_in;
    use super::*;
    use crate::broker::place::Place;
    use crate::broker::segments::tests::places;

    #[tokio::test]
    async fn what_the_log_has_and_a_crash_left_is_removed_unread() {
        let folder = tempfile::tempdir().unwrap();
        for place in places(&folder, "switch").into_iter().skip(1) {
            let Place::Store(location) = &place else { continue };
            let location = commands_in(location);
            put(&location, "halt", 1).await.unwrap();
            let found = Inbox::new(location.clone(), &[]).look(&Clock::System).await.unwrap();
            assert_eq!(found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["halt"], "{place}");
            let mut logged = Command::parse("halt").unwrap();
            logged.object = Some(found[0].0.clone());
            put(&location, "resume", 2).await.unwrap();
            let mut next = Inbox::new(location.clone(), &[logged]);
            let found = next.look(&Clock::System).await.unwrap();
            assert_eq!(
                found.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
                ["resume"],
                "{place}"
            );
            let there: Vec<ObjectMeta> =
                location.store.list(Some(&location.path)).try_collect().await.unwrap();
            assert_eq!(there.len(), 1, "{place}");
        }
    }
}
