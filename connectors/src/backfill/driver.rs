//! Brings a history into a dataset: leaves out what is there, range by range, each committed in one piece.
//!
//! A fetch and the archive's sorting and encoding run beside each other, with [`BATCHES_QUEUED_MAX`] batches between
//! them. A range that fails leaves the dataset as it was; the others go on. When the user wants to stop, the
//! range at hand is finished first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::datatypes::Schema;
use tidemill_archive::{Covered, Dataset, Layout, RangeKey, RangeWriter, WriteOptions};
use tidemill_engine::clock::Clock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::continuity::{Checker, Gap, Last, Rule};
use super::ranges::{Span, missing, pieces};
use super::{BATCHES_QUEUED_MAX, Failure, History, Meter, Refused, Rows, Work};

/// How a history is brought in.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also what is there already: its rows are replaced.
    pub force: bool,
    /// Folders of the dataset, where it is made; else the history's own choice.
    pub partition_by: Option<Vec<String>>,
    /// Order of rows in files, where it is made.
    pub sort: Option<Vec<String>>,
    /// How files are written.
    pub write: WriteOptions,
}

/// What became of one piece.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Of what, and which piece.
    pub label: String,
    /// Rows that are in the archive now.
    pub rows: u64,
    /// How long it took.
    pub took: Duration,
    /// What is missing in it.
    pub gaps: Vec<Gap>,
    /// Rows that stood behind one that they should precede.
    pub backwards: u64,
    /// Rows that could not be read.
    pub refused: Refused,
    /// Why it is not in the archive.
    pub error: Option<String>,
}

/// What became of all.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The pieces, in order.
    pub outcomes: Vec<Outcome>,
    /// How much was there already.
    pub skipped: u64,
    /// Pieces that were not begun.
    pub left: u64,
    /// Why it ended before its end.
    pub stopped: Option<String>,
}

impl Report {
    /// Whether everything is in the archive that was asked for.
    pub fn is_well(&self) -> bool {
        self.stopped.is_none() && self.left == 0 && self.outcomes.iter().all(|o| o.error.is_none())
    }
}

/// Brings `history` into `dataset`; `each` is told of every piece as it ends.
pub async fn run(
    history: &dyn History,
    dataset: &Dataset,
    options: &Options,
    meter: &Arc<Meter>,
    clock: &Clock,
    stop: &CancellationToken,
    each: &mut (dyn FnMut(&Outcome) + Send),
) -> Result<Report, Failure> {
    let failed = |e: tidemill_archive::ArchiveError| Failure::Stop(e.to_string());
    let state = dataset.state().await.map_err(failed)?;
    let work = history.plan(&state.ranges, options.force).await?;
    let mut report = Report::default();
    let mut todo: Vec<(&Work, Span)> = Vec::new();
    for work in &work {
        let there: Vec<Span> = match options.force {
            true => Vec::new(),
            false => covered(&state.ranges, work),
        };
        let all = pieces(work.span, work.cut);
        let left: Vec<Span> =
            missing(work.span, &there).into_iter().flat_map(|hole| pieces(hole, work.cut)).collect();
        // A piece that is there in part is not counted as there.
        let untouched = all.iter().filter(|p| !left.iter().any(|l| !l.overlap(**p).is_empty()));
        report.skipped += untouched.count() as u64;
        todo.extend(left.into_iter().map(|piece| (work, piece)));
    }
    let size = |work: &Work, piece: Span| {
        let part = u128::from(piece.length()) * u128::from(work.size) / u128::from(work.span.length().max(1));
        part as u64
    };
    meter.size.store(todo.iter().map(|(w, p)| size(w, *p)).sum(), Ordering::Relaxed);
    meter.pieces.store(todo.len() as u64, Ordering::Relaxed);
    if todo.is_empty() {
        meter.ended.store(true, Ordering::Relaxed);
        return Ok(report);
    }
    create(history, dataset, options).await?;
    let mut last: HashMap<Id, (i64, Last)> = HashMap::new();
    for (i, (work, piece)) in todo.iter().enumerate() {
        if stop.is_cancelled() {
            report.stopped = Some("stopped".into());
            report.left = (todo.len() - i) as u64;
            break;
        }
        let label = label(work, *piece);
        meter.begin(label.clone());
        meter.inside.store(0, Ordering::Relaxed);
        let watch = clock.start();
        let id = (work.source.clone(), work.key.clone());
        // A range knows the one before it only where they touch.
        let before = last.remove(&id).filter(|(to, _)| *to == piece.from).map(|(_, last)| last);
        let (mut outcome, ended) =
            fetch(history, dataset, options, meter, work, *piece, before.unwrap_or_default()).await;
        (outcome.label, outcome.took) = (label, watch.elapsed());
        match ended {
            Ok(end) => {
                last.insert(id, (piece.to, end));
            }
            Err(Failure::Range(reason)) => outcome.error = Some(reason),
            Err(Failure::Stop(reason)) => {
                outcome.error = Some(reason.clone());
                report.stopped = Some(reason);
            }
            Err(Failure::Stopped) => {
                report.stopped = Some("stopped".into());
                report.left = (todo.len() - i) as u64;
                break;
            }
        }
        meter.inside.store(0, Ordering::Relaxed);
        meter.done.fetch_add(size(work, *piece), Ordering::Relaxed);
        meter.pieces_done.fetch_add(1, Ordering::Relaxed);
        each(&outcome);
        report.outcomes.push(outcome);
        if report.stopped.is_some() {
            report.left = (todo.len() - i - 1) as u64;
            break;
        }
    }
    meter.ended.store(true, Ordering::Relaxed);
    Ok(report)
}

/// Whose ranges: a source and a key.
type Id = (String, Vec<(String, String)>);

/// How a piece is called.
fn label(work: &Work, piece: Span) -> String {
    if piece == super::ranges::WHOLE { work.label.clone() } else { format!("{} {piece}", work.label) }
}

fn key(work: &Work) -> RangeKey {
    work.key.iter().fold(RangeKey::all(), |key, (column, value)| key.with(column, value))
}

/// What the dataset has of some work.
fn covered(ranges: &[Covered], work: &Work) -> Vec<Span> {
    let key = key(work);
    let own = ranges.iter().filter(|r| r.complete && r.source == work.source && r.key == key);
    own.map(|r| Span::new(r.from, r.to)).collect()
}

/// Makes the dataset, or sees that the rows fit into it.
async fn create(history: &dyn History, dataset: &Dataset, options: &Options) -> Result<(), Failure> {
    let failed =
        |e: tidemill_archive::ArchiveError| Failure::Stop(format!("dataset `{}`: {e}", dataset.name()));
    let schema: &Schema = &history.columns();
    let state = dataset.state().await.map_err(failed)?;
    let own = options.partition_by.clone().unwrap_or_else(|| history.partition_by());
    let folders = match &state.layout {
        // Its folders are decided; only where the user insists on others there is something to say.
        Some(layout) if options.partition_by.is_none() => layout.partition_by.clone(),
        _ => own,
    };
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let mut layout = Layout::new(schema, &folders);
    match (&options.sort, &state.layout, history.rule()) {
        (Some(sort), None, _) => {
            layout = layout.sorted_by(&sort.iter().map(String::as_str).collect::<Vec<_>>())
        }
        (_, Some(old), _) => layout.sort.clone_from(&old.sort),
        // Trades of one instant stay in the order of their ids.
        (None, None, Rule::Ids(column)) if schema.index_of(tidemill_engine::row::SEQ).is_err() => {
            layout.sort.push(column);
        }
        _ => {}
    }
    dataset.create_or_open(&layout).await.map_err(failed)?;
    Ok(())
}

/// One piece: its outcome, and how its ids ended.
async fn fetch(
    history: &dyn History,
    dataset: &Dataset,
    options: &Options,
    meter: &Arc<Meter>,
    work: &Work,
    piece: Span,
    last: Last,
) -> (Outcome, Result<Last, Failure>) {
    let mut outcome = Outcome::default();
    let failed = |e: tidemill_archive::ArchiveError| Failure::Range(e.to_string());
    let writer =
        RangeWriter::new(dataset, &work.source, key(work), piece.from, piece.to, options.write.clone()).await;
    let mut writer = match writer {
        Ok(writer) => writer,
        Err(error) => return (outcome, Err(failed(error))),
    };
    let span = Some(piece).filter(|p| *p != super::ranges::WHOLE);
    let mut checker = Checker::new(history.rule(), &work.label, span, last);
    let (tx, rx) = mpsc::channel(BATCHES_QUEUED_MAX);
    let mut out = Rows { tx, refused: Refused::default(), gaps: Vec::new(), meter: meter.clone(), piece };
    let read = async {
        let read = history.fetch(work, piece, &mut out).await;
        // Closes the queue, so that the writer sees the end.
        let Rows { refused, gaps, .. } = out;
        (read, refused, gaps)
    };
    let write = async move {
        // A writer that fails drops the queue, and so ends the fetch.
        let mut rx = rx;
        while let Some(rows) = rx.recv().await {
            checker.look(&rows);
            writer.write(rows).await.map_err(failed)?;
        }
        Ok((writer, checker))
    };
    let ((read, refused, gaps), written) = tokio::join!(read, write);
    outcome.refused = refused;
    let (mut writer, checker) = match (written, read) {
        (Err(error), _) | (Ok(_), Err(error)) => return (outcome, Err(error)),
        (Ok(done), Ok(())) => done,
    };
    let refused = outcome.refused.count;
    if refused > writer.rows() {
        let reason = outcome.refused.reasons.first().cloned().unwrap_or_default();
        let rows = writer.rows();
        return (
            outcome,
            Err(Failure::Range(format!(
                "{refused} rows cannot be read and {rows} can, so nothing is taken: {reason}"
            ))),
        );
    }
    let (found, backwards, end) = checker.finish();
    outcome.gaps = gaps.into_iter().chain(found).collect();
    outcome.backwards = backwards;
    for gap in &outcome.gaps {
        let reason = match gap.key == work.label {
            true => gap.reason.clone(),
            false => format!("{}: {}", gap.key, gap.reason),
        };
        writer.gap(gap.span.from, gap.span.to, reason);
    }
    match writer.finish(true).await {
        Ok(done) => {
            outcome.rows = done.rows;
            (outcome, Ok(end))
        }
        Err(error) => (outcome, Err(failed(error))),
    }
}
