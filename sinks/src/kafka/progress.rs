//! A shard's progress: the last committed record of its partition in the progress topic.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};
use tidemill_connectors::kafka::Connection;
use tidemill_connectors::kafka::admin::{self, ANSWER_TIMEOUT, READ_DEFAULTS, read_fixed, read_range};
use tidemill_connectors::kafka::client::{Ear, blocking, create};
use tidemill_engine::connector::ConnectorError;

/// How far back the newest record is looked for at first; each further look goes eight times as far.
const TAIL: i64 = 64;

/// What a shard has committed, as it stands in the progress topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) job: String,
    pub(super) sink: String,
    pub(super) shard: usize,
    /// How many shards there were: with another number, rows belong to other shards.
    pub(super) shards: usize,
    /// The topic that has the rows.
    pub(super) topic: String,
    /// Every row with an earlier `ts` is in the topic, none with this or a later one.
    pub(super) watermark: i64,
    /// The start that wrote it.
    pub(super) generation: u64,
    /// The run that it counts for: one that began from nothing later writes everything again.
    pub(super) run: u64,
}

/// Name of the progress topic of a sink.
pub(super) fn topic(job: &str, sink: &str) -> String {
    clean(&format!("tidemill.{job}.{sink}.progress"))
}

/// The transactional id of a shard.
pub(super) fn transactional_id(job: &str, sink: &str, shard: usize) -> String {
    clean(&format!("tidemill.{job}.{sink}.{shard}"))
}

/// Topic names have letters, digits, dots, dashes and underscores only.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

/// Makes the progress topic where it is missing.
pub(super) async fn prepare(
    connection: &Connection,
    topic: &str,
    shards: usize,
) -> Result<(), ConnectorError> {
    let settings = [
        ("cleanup.policy", "compact"),
        // Small segments are compacted soon; only the newest record of each partition matters.
        ("segment.bytes", "16777216"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    match admin::topic_partitions(connection, topic).await? {
        None => super::make_topic(connection, topic, shards, &settings).await,
        Some(count) if count >= shards => Ok(()),
        Some(count) => Err(ConnectorError::Fatal(format!(
            "the sink has {shards} shards, and its progress topic `{topic}` was made for {count}; keep `shards: {count}`, or \
             give the sink another name and topic"
        ))),
    }
}

/// The newest committed record of `shard`. To be called after the shard's older writer is fenced.
pub(super) async fn read(
    connection: &Connection,
    topic: &str,
    shard: usize,
) -> Result<Option<Progress>, ConnectorError> {
    let config = connection.config(&READ_DEFAULTS, &read_fixed("tidemill.progress", "read_committed"))?;
    let topic = topic.to_owned();
    blocking(move || {
        let partition = shard as i32;
        let failed = |e: KafkaError| ConnectorError::Transient(format!("cannot read progress from kafka topic `{topic}` partition {partition}: {e}"));
        let client: BaseConsumer<Ear> = create(&config, Ear::quiet())?;
        let (low, high) = client.fetch_watermarks(&topic, partition, ANSWER_TIMEOUT).map_err(failed)?;
        let mut back = TAIL;
        let mut messages = Vec::new();
        if high <= low {
            return Ok(None);
        }
        loop {
            let from = low.max(high.saturating_sub(back));
            messages.clear();
            read_range(&client, &topic, partition, from, &mut messages).map_err(failed)?;
            if let Some(payload) = messages.pop().and_then(|m| m.payload) {
                return serde_json::from_slice(&payload).map(Some).map_err(|e| {
                    ConnectorError::Fatal(format!(
                        "the progress in kafka topic `{topic}` partition {partition} cannot be read ({e}): something else wrote there"
                    ))
                });
            }
            // Marks and aborted records only, or compaction's holes: look further back.
            if from == low {
                return Ok(None);
            }
            back = back.saturating_mul(8);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_kafka() {
        assert_eq!(topic("my job", "sïgnals"), "tidemill.my_job.s_gnals.progress");
        assert_eq!(transactional_id("j", "s", 3), "tidemill.j.s.3");
    }
}
