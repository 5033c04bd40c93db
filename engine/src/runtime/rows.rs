//! The container that travels on timely's edges: one Arrow batch.

use std::cell::OnceCell;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

/// Rows on an edge; empty by default.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    batch: Option<RecordBatch>,
    /// Arrow IPC form, made once when timely asks for the length before the bytes.
    encoded: OnceCell<Vec<u8>>,
}

impl From<RecordBatch> for Rows {
    fn from(batch: RecordBatch) -> Self {
        Self { batch: Some(batch), encoded: OnceCell::new() }
    }
}

impl Rows {
    /// Takes the batch out.
    pub fn take(&mut self) -> Option<RecordBatch> {
        self.encoded = OnceCell::new();
        self.batch.take()
    }

    fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| self.batch.as_ref().map_or_else(Vec::new, encode))
    }
}

/// A batch as a self-contained Arrow IPC stream.
pub fn encode(batch: &RecordBatch) -> Vec<u8> {
    let attempt = || {
        let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref())?;
        writer.write(batch)?;
        writer.into_inner()
    };
    attempt().expect("writing a valid batch to memory cannot fail")
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    StreamReader::try_new(bytes, None)?.next().transpose()
}

impl Accountable for Rows {
    fn record_count(&self) -> i64 {
        self.batch.as_ref().map_or(0, |b| b.num_rows() as i64)
    }
}

/// Length prefix, then the IPC stream, padded to eight bytes.
impl ContainerBytes for Rows {
    fn from_bytes(bytes: Bytes) -> Self {
        let (length, rest) =
            bytes.split_first_chunk::<8>().expect("a peer of this build sends a length first");
        let body = &rest[..u64::from_le_bytes(*length) as usize];
        Self {
            batch: decode(body).expect("a peer of this build sends valid Arrow IPC"),
            encoded: OnceCell::new(),
        }
    }

    fn length_in_bytes(&self) -> usize {
        8 + self.encoded().len().next_multiple_of(8)
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let body = self.encoded();
        let padding = body.len().next_multiple_of(8) - body.len();
        let write = |w: &mut W| {
            w.write_all(&(body.len() as u64).to_le_bytes())?;
            w.write_all(body)?;
            w.write_all(&[0; 8][..padding])
        };
        write(writer).expect("timely hands out a buffer of the length it asked for");
    }
}
