//! What every node with inputs does before its rows reach it: keeps checkpoint epochs apart, drops
//! rows with null keys, and holds rows where they must come in order.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::keys::KeyReader;
use crate::runtime::hold::{Hold, sorted};
use crate::runtime::time::Time;

/// One input port.
pub struct Port {
    keys: KeyReader,
    hold: Option<Hold>,
}

/// Rows of all ports on their way in.
pub struct Align {
    ports: Vec<Port>,
    /// The epoch whose rows are taken now.
    pub epoch: u64,
    /// Rows of later epochs.
    stash: VecDeque<(Time, usize, RecordBatch)>,
    /// Rows that a checkpoint held for ports which hold none any more: they come before all others.
    early: Vec<Ready>,
}

/// Rows that may be processed at once, by port.
pub type Ready = (usize, RecordBatch);

impl Align {
    /// Ports with their key columns; `ordered` ones hold rows until the watermark passes them.
    pub fn new(ports: Vec<(SchemaRef, Vec<usize>)>, ordered: bool, epoch: u64) -> Self {
        let port = |(schema, keys): (SchemaRef, Vec<usize>)| Port {
            keys: KeyReader::new(keys),
            hold: ordered.then(|| Hold::new(schema)),
        };
        Self {
            ports: ports.into_iter().map(port).collect(),
            epoch,
            stash: VecDeque::new(),
            early: Vec::new(),
        }
    }

    /// Takes a batch; gives it back where it is to be processed now, and the number of rows left
    /// out because a key was null.
    pub fn accept(
        &mut self,
        time: Time,
        port: usize,
        batch: RecordBatch,
    ) -> Result<(Option<Ready>, u64), ArrowError> {
        if time.epoch > self.epoch {
            self.stash.push_back((time, port, batch));
            return Ok((None, 0));
        }
        let rows = batch.num_rows();
        let batch = match self.ports[port].keys.null_rows(&batch) {
            None => batch,
            Some(nulls) => arrow::compute::filter_record_batch(&batch, &arrow::compute::not(&nulls)?)?,
        };
        let dropped = (rows - batch.num_rows()) as u64;
        match &mut self.ports[port].hold {
            Some(hold) => {
                hold.insert(batch)?;
                Ok((None, dropped))
            }
            None if batch.num_rows() == 0 => Ok((None, dropped)),
            None => Ok((Some((port, batch)), dropped)),
        }
    }

    /// The watermark that may be acted on when the frontier says `watermark`: rows stashed for a
    /// later epoch have left timely's books but not been processed.
    pub fn watermark(&self, watermark: i64) -> i64 {
        self.stash.iter().map(|(time, ..)| time.ts).fold(watermark, i64::min)
    }

    /// Held rows below `watermark`, by port; `None` where there are none at all.
    pub fn release(&mut self, watermark: i64) -> Result<Option<Vec<Option<RecordBatch>>>, ArrowError> {
        let mut any = false;
        let mut ready = Vec::with_capacity(self.ports.len());
        for port in &mut self.ports {
            let batch = match &mut port.hold {
                Some(hold) => hold.release(watermark)?,
                None => None,
            };
            any |= batch.is_some();
            ready.push(batch);
        }
        Ok(any.then_some(ready))
    }

    /// Passes into the next epoch; its stashed rows.
    pub fn next_epoch(&mut self) -> Vec<(Time, usize, RecordBatch)> {
        self.epoch += 1;
        let epoch = self.epoch;
        let (now, later) =
            std::mem::take(&mut self.stash).into_iter().partition(|(time, ..)| time.epoch <= epoch);
        self.stash = later;
        Vec::from_iter::<VecDeque<_>>(now)
    }

    /// How many rows are held.
    pub fn held(&self) -> usize {
        self.ports.iter().filter_map(|p| p.hold.as_ref()).map(Hold::len).sum()
    }

    /// Held rows, by port, for a snapshot.
    pub fn snapshot(&self) -> Vec<Vec<RecordBatch>> {
        self.ports.iter().map(|p| p.hold.as_ref().map_or_else(Vec::new, Hold::batches)).collect()
    }

    /// Puts held rows back. Where rows are taken as they come now (the graph's time-keeping has changed), they wait for
    /// [`early`](Self::early).
    pub fn restore(&mut self, port: usize, batch: RecordBatch) -> Result<(), ArrowError> {
        match self.ports.get_mut(port) {
            Some(Port { hold: Some(hold), .. }) => hold.insert(batch),
            Some(_) => {
                self.early.push((port, batch));
                Ok(())
            }
            None => Err(ArrowError::InvalidArgumentError(format!(
                "a checkpoint holds rows for input {port}, which is not there"
            ))),
        }
    }

    /// Takes the restored rows that are to be processed before any other: each port's in order.
    pub fn early(&mut self) -> Result<Vec<Ready>, ArrowError> {
        let mut ports: std::collections::BTreeMap<usize, Vec<RecordBatch>> = Default::default();
        for (port, batch) in self.early.drain(..) {
            ports.entry(port).or_default().push(batch);
        }
        let in_order = |(port, batches): (usize, Vec<RecordBatch>)| {
            let all = arrow::compute::concat_batches(&batches[0].schema(), &batches)?;
            Ok((port, sorted(all)?))
        };
        ports.into_iter().map(in_order).collect()
    }
}
