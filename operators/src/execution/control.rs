//! Commands from outside: `command` is `halt`, `flatten`, `reduce` or `resume`.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use tidemill_engine::component::StreamInfo;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::signal::Control;

use super::Shell;

/// Where the column is.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    command: usize,
}

impl Columns {
    pub fn of(input: &StreamInfo) -> Result<Self, Problem> {
        let command = input.column("control", "command")?;
        match input.data_type(command) {
            DataType::Utf8 | DataType::Dictionary(..) => Ok(Self { command }),
            _ => Err(Problem::new("control", format!("column `command` of `{}` is no text", input.name))),
        }
    }
}

/// A batch of commands.
pub struct ControlRows<'a> {
    command: &'a ArrayRef,
}

impl<'a> ControlRows<'a> {
    pub fn new(columns: &Columns, batch: &'a RecordBatch) -> Self {
        Self { command: batch.column(columns.command) }
    }

    pub fn row(&self, i: usize, ts: i64, shell: &mut Shell, events: &mut Vec<Event>) {
        let text = row::text(self.command, i).unwrap_or("null");
        let control = match text.to_ascii_lowercase().as_str() {
            "halt" => Control::Halt,
            "flatten" => Control::Flatten,
            "reduce" => Control::Reduce,
            "resume" => Control::Resume,
            _ => {
                let detail = format!("`{text}` is no command: it is halt, flatten, reduce or resume");
                return shell.machine.complain(ts, None, "bad_command", detail, events);
            }
        };
        shell.machine.control(ts, control, events);
    }
}
