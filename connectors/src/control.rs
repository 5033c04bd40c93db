//! Commands to a running job, from a text file or from objects in a store: the kill switch of a trading job.
//!
//! One partition. The file says no times, and may be replaced; so each line gets its number and its `ts` when it is read, in a log
//! beside the file ([`switch`]), before any operator sees it. A restart reads the log. `_seq` is the line's number in the log and, behind it,
//! a count of heartbeats.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidemill_engine::component::{Partitions, PlanContext, Problems, SourceKind, SourcePlan};
use tidemill_engine::connector::ConnectorError;
use tidemill_engine::duration::Span;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_engine::source::{Chunk, PartitionWriter, Seqs, Source, SourceContext, Stopped};
use tokio::time::MissedTickBehavior;

pub mod inbox;
pub mod switch;

use switch::{Command, Switch};

use crate::broker::place::Place;

/// The partition's number.
const PARTITION: u32 = 0;
/// Bits of `_seq` that count heartbeats behind a command.
const BEAT_BITS: u32 = 32;

/// Commands to a running job, from a text file: what `execution` reads as `control`.
///
/// A line is a command: `halt`, `flatten`, `reduce` or `resume`, and after it, if you like, why. `tidemill control GRAPH halt` writes one, and
/// so does `echo halt >> FILE`. The file need not be there. A command is taken within a `heartbeat`, also one without a line end (a tenth of a
/// second later). A file that was replaced is read as new; one that was removed takes no command back: `resume` does. Lines that begin
/// with `#` are passed over.
///
/// What was read stands with its time in a log beside the file (`FILE.log`): commands hold across restarts, until `resume`.
///
/// In object storage (`path: s3://bucket/switch`) the commands reach the job wherever it runs, and the log outlives its machine. Each object below
/// `commands/` of that place is a text of commands, of any name; `tidemill control` puts one, and it is taken within a quarter of a second. By hand:
/// `echo halt | aws s3 cp - s3://bucket/switch/commands/halt-1`.
///
/// Columns: `ts`, when the command was read; `command`, in lower case; `reason`. While there is none, a row of nulls lets time pass: operators
/// that read this stream beside market data wait for it at most a `heartbeat`. In turn a command waits for market data of its time; so
/// give feeds an `idle_timeout` (`1s`), which lets a command pass when a feed has died.
///
/// ```yaml
/// sources:
///   switch: { kind: control, with: { path: kill-switch } }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The file, on this machine, relative to the graph's folder; or a folder in object storage (`s3://…`, `gs://…`, `az://…`), with one object
    /// a command in its `commands/`. Default: `.tidemill/JOB/NODE.commands`.
    #[serde(default)]
    pub path: Option<String>,
    /// How often the file is looked at; while nothing is commanded, a row says so.
    #[serde(default = "heartbeat")]
    pub heartbeat: Span,
}

fn heartbeat() -> Span {
    Span::from_ns(10_000_000)
}

/// Where commands of node `node` of job `job` are put, whose graph is in `base`.
pub fn place(path: Option<&str>, base: &Path, job: &str, node: &str) -> Result<Place, Problem> {
    match path {
        Some(path) => Place::parse(path, base, "path"),
        None => Ok(Place::Local(base.join(".tidemill").join(job).join(format!("{node}.commands")))),
    }
}

/// The kind.
pub struct Control;

#[async_trait]
impl SourceKind for Control {
    const KIND: &'static str = "control";
    type Params = Params;

    async fn plan(params: Params, cx: &PlanContext) -> Result<SourcePlan, Problems> {
        let mut problems = Problems::new();
        let place = place(params.path.as_deref(), &cx.base, &cx.job, &cx.node);
        let place = place.map_err(|found| problems.push(found)).ok();
        if params.heartbeat < Span::from_ns(1_000_000) {
            problems.push(Problem::new("heartbeat", "must be 1ms or more"));
        }
        let Some(place) = place.filter(|_| problems.is_empty()) else { return Err(problems) };
        Ok(SourcePlan {
            columns: columns(),
            partitions: Partitions::Single,
            bounded: false,
            replayable: true,
            source: Arc::new(ControlSource { place, heartbeat: params.heartbeat }),
        })
    }
}

fn columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new(row::TS, row::ts_type(), false),
        Field::new("command", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
    ]))
}

struct ControlSource {
    place: Place,
    heartbeat: Span,
}

/// Where the source stands.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Stand {
    /// The last command that was sent.
    command: u64,
    /// Heartbeats behind it.
    beats: u32,
    /// `ts` of the last row.
    ts: i64,
    /// `ts` of the last command; checkpoints of earlier versions do not say.
    #[serde(default)]
    command_ts: Option<i64>,
}

#[async_trait]
impl Source for ControlSource {
    fn kept_here(&self) -> Option<String> {
        self.place.local().map(|file| file.display().to_string())
    }

    async fn run(&self, cx: SourceContext) -> Result<(), ConnectorError> {
        let mut writers = cx.ready(&[PARTITION]);
        let Some(writer) = writers.pop() else { return Ok(()) };
        let stand: Stand = match cx.restored.get(&PARTITION) {
            Some(position) => serde_json::from_value(position.clone())
                .map_err(|e| ConnectorError::fatal("the checkpoint's position is not readable", e))?,
            None => Stand::default(),
        };
        let mut switch = Switch::open(&self.place, cx.clock.clone(), stand.command).await?;
        if !switch.is_log_of(stand.command, stand.command_ts) {
            return Err(ConnectorError::Fatal(format!(
                "cannot go on from the checkpoint: `{}` is not the log of commands that had been read up to command {}: it has other \
                 commands, which would be passed over; set `path` back, or run with `--from none`",
                switch::log_of(&self.place),
                stand.command
            )));
        }
        let mut sender = Sender { writer, stand };
        if sender.commands(&switch.after(stand.command)).await.is_err() {
            return Ok(());
        }
        let mut ticks = tokio::time::interval(self.heartbeat.std());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = cx.stop.cancelled() => return Ok(()),
            }
            let commands = switch.look(sender.stand.ts).await?;
            for command in &commands {
                let why = command.reason.as_deref().unwrap_or("no reason given");
                tracing::warn!(source = cx.name, "command `{}`: {why}", command.command);
            }
            let sent = match commands.as_slice() {
                [] => sender.beat(cx.clock.now_ns()).await,
                commands => sender.commands(commands).await,
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }
}

struct Sender {
    writer: PartitionWriter,
    stand: Stand,
}

impl Sender {
    async fn commands(&mut self, commands: &[Command]) -> Result<(), Stopped> {
        let Some(last) = commands.last() else { return Ok(()) };
        self.stand =
            Stand { command: last.n, beats: 0, ts: self.stand.ts.max(last.ts), command_ts: Some(last.ts) };
        let seqs = commands.iter().map(|c| c.n << BEAT_BITS).collect();
        let text = |of: fn(&Command) -> Option<&str>| StringArray::from_iter(commands.iter().map(of));
        self.send(
            commands.iter().map(|c| c.ts).collect(),
            text(|c| Some(&c.command)),
            text(|c| c.reason.as_deref()),
            Seqs::List(seqs),
        )
        .await
    }

    /// Says that time has passed.
    async fn beat(&mut self, now: i64) -> Result<(), Stopped> {
        if now <= self.stand.ts {
            return Ok(());
        }
        self.stand = Stand { beats: self.stand.beats.saturating_add(1), ts: now, ..self.stand };
        let seq = (self.stand.command << BEAT_BITS) | u64::from(self.stand.beats);
        self.send(vec![now], StringArray::new_null(1), StringArray::new_null(1), Seqs::From(seq)).await
    }

    async fn send(
        &mut self,
        ts: Vec<i64>,
        command: StringArray,
        reason: StringArray,
        seqs: Seqs,
    ) -> Result<(), Stopped> {
        let arrays: Vec<ArrayRef> = vec![row::ts_array(ts), Arc::new(command), Arc::new(reason)];
        let Ok(rows) = RecordBatch::try_new(columns(), arrays) else { return Err(Stopped) };
        let position = serde_json::json!(self.stand);
        self.writer.send(Chunk { rows, seqs, position, rejects: Vec::new() }).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conformance::{Drive, another_input_is_refused, read_source};

    async fn plan(path: &Path) -> SourcePlan {
        let cx =
            PlanContext { job: "j".into(), node: "n".into(), base: "/".into(), clock: Default::default() };
        let with = json!({"path": path.display().to_string(), "heartbeat": "5ms"});
        Control::plan(serde_json::from_value(with).unwrap(), &cx).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_of_another_file_is_refused_and_a_lost_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, lost] = ["one", "other", "lost"].map(|name| folder.path().join(name));
        std::fs::write(&one, "halt a\nresume\n").unwrap();
        std::fs::write(&other, "halt b\nhalt c\nreduce\n").unwrap();
        let drive = || Drive { rows_max: 3, ..Drive::default() };
        let read = plan(&other).await;
        read_source(&read.source, &read.columns, drive()).await.unwrap();
        // A command that stands in that log would never be obeyed.
        another_input_is_refused(
            &plan(&one).await,
            &plan(&other).await,
            drive(),
            &["other.log", "command 2"],
        )
        .await;

        let read = plan(&one).await;
        let read = read_source(&read.source, &read.columns, drive()).await.unwrap();
        let restored = [(0, read[&0].positions.last().unwrap().2.clone())].into();
        std::fs::write(&lost, "flatten\n").unwrap();
        let goes_on = plan(&lost).await;
        let drive = Drive { restored, rows_max: 1, ..Drive::default() };
        let rest = read_source(&goes_on.source, &goes_on.columns, drive).await.unwrap();
        let command = rest[&0].rows.column_by_name("command").unwrap();
        let command = arrow::array::AsArray::as_string::<i32>(command.as_ref());
        assert!(command.iter().flatten().all(|command| command == "flatten"));
    }
}
