//! An operator's input, whatever pact it came through.

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use arrow::array::RecordBatch;

use crate::plan::Exchange;
use crate::runtime::exchange::ByKey;
use crate::runtime::rows::Rows;
use crate::runtime::time::{Time, lower};

/// Pulls what has arrived.
pub type Input = Box<dyn FnMut(&mut dyn FnMut(Time, RecordBatch))>;

/// A stream of rows.
pub type RowStream<'scope> = Stream<'scope, Time, Rows>;

/// Adds an input that follows `exchange`.
pub fn add<'scope>(
    builder: &mut OperatorBuilder<'scope, Time>,
    stream: RowStream<'scope>,
    exchange: &Exchange,
    peers: usize,
) -> Input {
    macro_rules! pull {
        ($pact:expr) => {{
            let mut handle = builder.new_input(stream, $pact);
            Box::new(move |take: &mut dyn FnMut(Time, RecordBatch)| {
                handle.for_each(|capability, rows: &mut Rows| {
                    let time = capability.stamp().iter().copied().reduce(lower);
                    if let (Some(time), Some(batch)) = (time, rows.take()) {
                        take(time, batch);
                    }
                });
            })
        }};
    }
    if peers == 1 || *exchange == Exchange::Stay {
        pull!(Pipeline)
    } else {
        let exchange = exchange.clone();
        pull!(DistributorPact(move |peers| ByKey::new(&exchange, peers)))
    }
}
