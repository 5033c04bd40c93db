//! Which stream is what, and their rows in one order: `(ts, class, _src, _seq, port)`, where market data comes before reports, commands, signals.

use arrow::array::RecordBatch;
use tidemill_engine::component::{Problems, StreamInfo};
use tidemill_engine::operator::OperatorError;
use tidemill_engine::problem::Problem;
use tidemill_engine::row;
use tidemill_trading::event::Event;
use tidemill_trading::execution::params::ExecutionParams;

use super::Shell;
use super::control::{self, ControlRows};
use super::market::{self, MarketRows};
use super::reports::{self, ReportRows};
use super::signals::{self, SignalRows};

/// What an input stream is: market data and signals it may be at once.
#[derive(Clone, Debug, Default)]
pub struct Port {
    pub market: Option<market::Table>,
    pub reports: Option<reports::Columns>,
    pub control: Option<control::Columns>,
    pub signals: Option<signals::Columns>,
}

impl Port {
    fn class(&self) -> u8 {
        match self {
            Self { market: Some(_), .. } => 0,
            Self { reports: Some(_), .. } => 1,
            Self { control: Some(_), .. } => 2,
            _ => 3,
        }
    }
}

/// Finds out what each stream is.
pub fn ports(params: &ExecutionParams, inputs: &[StreamInfo]) -> Result<Vec<Port>, Problems> {
    let mut problems = Problems::new();
    let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
    let mut named = |path: String, name: &String| {
        if !names.contains(&name.as_str()) {
            let problem = Problem::new(path, format!("`{name}` is no stream of `from:`"));
            problems.push(problem.hint_names(name, names.iter().copied()));
        }
    };
    named("signals".into(), &params.signals);
    params.reports.iter().for_each(|name| named("reports".into(), name));
    params.control.iter().for_each(|name| named("control".into(), name));
    params.market.iter().flatten().enumerate().for_each(|(i, name)| named(format!("market[{i}]"), name));
    let mut ports = Vec::new();
    for input in inputs {
        let is = |name: &Option<String>| name.as_ref() == Some(&input.name);
        let signals = params.signals == input.name;
        let other = signals || is(&params.reports) || is(&params.control);
        let market = match &params.market {
            Some(names) => names.contains(&input.name),
            None => !other,
        };
        let mut port = Port::default();
        let mut keep = |problem: Problem| problems.push(problem);
        if market {
            port.market = market::Table::of(input).map_err(&mut keep).ok();
        }
        if is(&params.reports) {
            port.reports = reports::Columns::of(input).map_err(&mut keep).ok();
        }
        if is(&params.control) {
            port.control = control::Columns::of(input).map_err(&mut keep).ok();
        }
        if signals {
            port.signals = signals::Columns::of(input).map_err(&mut keep).ok();
        }
        if !market && !other {
            let problem =
                Problem::new("market", format!("`{}` is in `from:` but is named nowhere here", input.name));
            problems.push(problem.hint("add it to `market`, or take it out of `from:`"));
        }
        ports.push(port);
    }
    if problems.is_empty() { Ok(ports) } else { Err(problems) }
}

/// A port's batch, its columns at hand.
struct Cursor<'a> {
    class: u8,
    ts: &'a [i64],
    src: &'a [u64],
    seq: &'a [u64],
    market: Option<MarketRows<'a>>,
    reports: Option<ReportRows<'a>>,
    control: Option<ControlRows<'a>>,
    signals: Option<SignalRows<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(port: &'a Port, batch: &'a RecordBatch) -> Result<Self, OperatorError> {
        Ok(Self {
            class: port.class(),
            ts: row::ts(batch),
            src: row::src(batch),
            seq: row::seq(batch),
            market: port.market.as_ref().map(|t| MarketRows::new(t, batch)).transpose()?,
            reports: port.reports.as_ref().map(|c| ReportRows::new(c, batch)).transpose()?,
            control: port.control.as_ref().map(|c| ControlRows::new(c, batch)),
            signals: port.signals.as_ref().map(|c| SignalRows::new(c, batch)).transpose()?,
            at: 0,
        })
    }

    fn key(&self) -> (i64, u8, u64, u64) {
        (self.ts[self.at], self.class, self.src[self.at], self.seq[self.at])
    }

    /// Hands the next row over.
    #[inline]
    fn step(&mut self, shell: &mut Shell, events: &mut Vec<Event>) {
        let i = self.at;
        let ts = self.ts[i];
        self.at += 1;
        if let Some(rows) = &mut self.market {
            rows.row(i, ts, shell, events);
        }
        if let Some(rows) = &mut self.reports {
            rows.row(i, ts, shell, events);
        }
        if let Some(rows) = &self.control {
            rows.row(i, ts, shell, events);
        }
        if let Some(rows) = &mut self.signals {
            rows.row(i, ts, (self.src[i], self.seq[i]), shell, events);
        }
    }
}

/// Hands all rows over, in order.
pub fn feed(
    ports: &[Port],
    inputs: &[Option<RecordBatch>],
    shell: &mut Shell,
    events: &mut Vec<Event>,
) -> Result<(), OperatorError> {
    let mut cursors = Vec::with_capacity(ports.len());
    for (port, batch) in ports.iter().zip(inputs) {
        if let Some(batch) = batch.as_ref().filter(|b| b.num_rows() > 0) {
            cursors.push(Cursor::new(port, batch)?);
        }
    }
    while cursors.len() > 1 {
        // The first of all, and how far it may go before another has its turn.
        let mut first = 0;
        for other in 1..cursors.len() {
            if cursors[other].key() < cursors[first].key() {
                first = other;
            }
        }
        let others = cursors.iter().enumerate().filter(|(i, _)| *i != first);
        let Some((next, until)) = others.map(|(i, c)| (i, c.key())).min_by_key(|(i, key)| (*key, *i)) else {
            break;
        };
        let cursor = &mut cursors[first];
        loop {
            cursor.step(shell, events);
            if cursor.at == cursor.ts.len() {
                cursors.remove(first);
                break;
            }
            if (cursor.key(), first) > (until, next) {
                break;
            }
        }
    }
    if let Some(cursor) = cursors.first_mut() {
        while cursor.at < cursor.ts.len() {
            cursor.step(shell, events);
        }
    }
    Ok(())
}
