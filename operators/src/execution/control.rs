//! Commands from outside: `command` is `halt`, `flatten`, `reduce` or `resume`, or null where only time passes; `reason`, where there is
//! such a column, is told with what the command does.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use tidemill_engine::component::StreamInfo;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::signal::Control;

use super::Shell;

/// Where the columns are.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    command: usize,
    reason: Option<usize>,
}

impl Columns {
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        let command = input.column("control", "command")?;
        let reason = input.column("control", "reason").ok();
        for (name, column) in [("command", Some(command)), ("reason", reason)] {
            let data_type = column.map(|column| input.data_type(column));
            if !matches!(data_type, None | Some(DataType::Utf8 | DataType::Dictionary(..))) {
                let wrong = format!("column `{name}` of `{}` is no text", input.name);
                return Err(Problem::new("control", wrong));
            }
        }
        Ok(Self { command, reason })
    }
}

/// A batch of commands.
pub struct ControlRows<'a> {
    command: &'a ArrayRef,
    reason: Option<&'a ArrayRef>,
}

impl<'a> ControlRows<'a> {
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Self {
        Self { command: batch.column(columns.command), reason: columns.reason.map(|c| batch.column(c)) }
    }

    pub fn row(&self, i: usize, ts: i64, shell: &mut Shell, events: &mut Vec<Event>) {
        let Some(text) = row::text(self.command, i) else {
            return shell.machine.advance(ts, events);
        };
        let control = match text.trim().to_ascii_lowercase().as_str() {
            "halt" => Control::Halt,
            "flatten" => Control::Flatten,
            "reduce" => Control::Reduce,
            "resume" => Control::Resume,
            _ => {
                let detail = format!("`{text}` is no command: it is halt, flatten, reduce or resume");
                return shell.machine.complain(ts, None, "bad_command", detail, events);
            }
        };
        let why = self.reason.and_then(|column| row::text(column, i)).unwrap_or_default();
        shell.machine.control(ts, control, why, events);
    }
}
