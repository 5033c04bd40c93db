//! The instrument of each row of a batch, looked up once for each distinct symbol.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Int32Type;
use tidemill_engine::row;
use tidemill_trading::execution::Execution;
use tidemill_trading::market::InstrumentId;

/// The symbols of a batch.
pub struct Symbols<'a> {
    column: &'a ArrayRef,
    /// Dictionary codes, where the column has them.
    codes: Option<&'a [i32]>,
    /// By code: `None` not looked up yet.
    known: Vec<Option<Option<InstrumentId>>>,
}

impl<'a> Symbols<'a> {
    pub fn new(column: &'a ArrayRef) -> Self {
        let dictionary = column.as_dictionary_opt::<Int32Type>();
        let codes = dictionary.map(|d| d.keys().values().as_ref());
        let known = vec![None; dictionary.map_or(0, |d| d.values().len())];
        Self { column, codes, known }
    }

    /// The instrument of row `i`. A symbol that is new gets its number when its first row has its turn, so that numbers follow the
    /// order of rows.
    #[inline]
    pub fn of(&mut self, i: usize, machine: &mut Execution) -> Option<InstrumentId> {
        if let Some(codes) = self.codes
            && !self.column.is_null(i)
        {
            let known = self.known.get_mut(codes[i] as usize)?;
            if let Some(found) = *known {
                return found;
            }
            let found = row::text(self.column, i).and_then(|symbol| machine.instrument(symbol));
            *known = Some(found);
            return found;
        }
        machine.instrument(row::text(self.column, i)?)
    }

    /// Whether row `i` has one.
    pub fn any(&self, i: usize) -> bool {
        row::text(self.column, i).is_some()
    }

    /// The symbol of row `i`, for messages.
    pub fn text(&self, i: usize) -> &str {
        row::text(self.column, i).unwrap_or("null")
    }
}
