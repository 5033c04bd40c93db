//! What the gate lets through, rule by rule; each limit at its boundary.

mod book_risk;
mod breakers;
mod limits;
mod market;
mod sequences;

use super::*;
use crate::history::History;

pub(crate) fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

pub(crate) fn instrument(text: &str) -> Instrument {
    serde_json::from_str(text).unwrap()
}

pub(crate) fn params(text: &str) -> GateParams {
    serde_json::from_str(text).unwrap()
}

/// An account as simple as can be.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    pub equity: f64,
    pub position: Vec<Decimal>,
    pub working: Vec<Working>,
    pub price: Vec<f64>,
    pub rate: Vec<Option<Decimal>>,
    pub history: Option<History>,
}

impl Book {
    /// All at 100, nothing held, equity 100000.
    pub fn new(instruments: usize) -> Self {
        Self {
            equity: 100_000.0,
            position: vec![Decimal::ZERO; instruments],
            working: vec![Working::default(); instruments],
            price: vec![100.0; instruments],
            rate: vec![Some(Decimal::ONE); instruments],
            history: None,
        }
    }
}

impl View for Book {
    fn equity(&self) -> f64 {
        self.equity
    }
    fn currency(&self) -> &str {
        "USD"
    }
    fn position(&self, i: InstrumentId) -> Decimal {
        self.position[i as usize]
    }
    fn working(&self, i: InstrumentId) -> Working {
        self.working[i as usize]
    }
    fn price(&self, i: InstrumentId) -> f64 {
        self.price[i as usize]
    }
    fn rate(&self, i: InstrumentId) -> Option<Decimal> {
        self.rate[i as usize]
    }
    fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }
}

/// Banks BAC and AIG, and the future ES (fifty dollars a point) elsewhere.
fn instruments() -> Arc<[Instrument]> {
    [
        instrument(r#"{"symbol": "BAC", "sector": "banks", "venue": "nyse"}"#),
        instrument(r#"{"symbol": "AIG", "sector": "banks", "venue": "nyse"}"#),
        instrument(r#"{"symbol": "ES", "class": "future", "multiplier": 50, "venue": "cme"}"#),
    ]
    .into()
}

fn gate(text: &str) -> Gate {
    Gate::new(&params(text), instruments()).unwrap()
}

fn market(instrument: InstrumentId, side: Side, quantity: &str) -> OrderIntent {
    OrderIntent {
        instrument,
        side,
        quantity: d(quantity),
        price: d("100"),
        order_type: OrderType::Market,
        reduce_only: false,
        protective: false,
    }
}

fn buy(instrument: InstrumentId, quantity: &str) -> OrderIntent {
    market(instrument, Side::Buy, quantity)
}

fn sell(instrument: InstrumentId, quantity: &str) -> OrderIntent {
    market(instrument, Side::Sell, quantity)
}

/// What the gate says of an order at time 0: the rule that refuses it, or nothing.
fn verdict(gate: &mut Gate, book: &Book, order: OrderIntent) -> &'static str {
    gate.check(0, &order, book).map_or_else(|refusal| refusal.rule, |()| "")
}

#[test]
fn without_rules_all_orders_pass() {
    let mut gate = gate("{}");
    assert_eq!(verdict(&mut gate, &Book::new(3), buy(0, "1000000000")), "");
    assert_eq!(gate.state(), TradingState::Normal);
    assert_eq!(gate.next_due(), i64::MAX);
}

#[test]
fn orders_that_are_none_are_refused() {
    let mut gate = gate("{}");
    let book = Book::new(3);
    assert_eq!(verdict(&mut gate, &book, buy(0, "0")), "order.quantity");
    assert_eq!(verdict(&mut gate, &book, OrderIntent { price: d("-1"), ..buy(0, "1") }), "order.price");
    assert_eq!(verdict(&mut gate, &book, OrderIntent { instrument: 9, ..buy(0, "1") }), "order.symbol");
}

#[test]
fn what_is_wrong_in_the_graph_is_told_all_at_once() {
    let wrong = Gate::new(
        &params(
            r#"{"order": {"max_quantity": -1, "symbols": {"SPX": {"max_quantity": 1}}}, "sector": {"tech": 1}, "venue": {"*": 5},
                "rate": {"orders": 0, "per": "0"}, "daily_loss": {"zone": "Mars"}, "drawdown": {"max": 1.5},
                "var": {"level": 99, "amount": 1, "fraction": 0.1}, "correlation": {"max": 2}}"#,
        ),
        instruments(),
    );
    let paths: Vec<String> = wrong.unwrap_err().into_iter().map(|(path, _)| path).collect();
    let expected = [
        "order.symbols.SPX",
        "sector.tech",
        "order.max_quantity",
        "rate.orders",
        "rate.per",
        "daily_loss",
        "drawdown.max",
        "var",
        "var.level",
        "correlation.max",
        "daily_loss.zone",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn the_manual_page_s_example_is_read() {
    // As in the doc comment of `GateParams`.
    let params = params(
        r#"{"order": {"max_quantity": 5000, "max_notional": 250000},
            "position": {"max_notional": 500000, "symbols": {"BAC": {"max_notional": 1000000}}},
            "sector": {"banks": 400000}, "gross": 2000000, "leverage": 2, "concentration": {"max": 0.5},
            "rate": {"orders": 20, "per": "1s"}, "collar": {"bps": 100}, "stale": "10s",
            "daily_loss": {"fraction": 0.03, "zone": "America/New_York", "action": "halt"},
            "drawdown": {"max": 0.1, "cool_down": "1d", "action": "flatten"}, "var": {"level": 0.99, "fraction": 0.05}}"#,
    );
    assert!(Gate::new(&params, instruments()).is_ok());
    assert!(serde_json::from_str::<GateParams>(r#"{"groß": 1}"#).is_err());
}

#[test]
fn a_name_that_nothing_has_is_told_with_the_nearest_one() {
    let told = |text: &str, wrong: Result<Gate, super::Wrong>| match wrong {
        Ok(_) => panic!("{text} is taken"),
        Err(wrong) => wrong.into_iter().map(|(path, why)| format!("{path}: {why}")).collect::<Vec<_>>(),
    };
    let new = |text: &str| told(text, Gate::new(&params(text), instruments()));
    assert_eq!(
        new(r#"{"position": {"symbols": {"BACC": {"max_quantity": 1}}}}"#),
        ["position.symbols.BACC: no instrument has this symbol: did you mean `BAC`?"]
    );
    assert_eq!(
        new(r#"{"sector": {"Bank": 5}}"#),
        ["sector.Bank: no instrument has this `sector`: did you mean `banks`?"]
    );
    // What comes later is like the template, so its sector is known.
    let text = r#"{"sector": {"banks": 5}}"#;
    let share =
        |more: &str| serde_json::from_str::<Instrument>(&format!(r#"{{"symbol": "?"{more}}}"#)).unwrap();
    let open = |more: &str| Gate::open(&params(text), &[], Some(&share(more)));
    assert_eq!(
        told(text, open("")),
        ["sector.banks: no instrument has a `sector`: write it in `instruments` or `default_instrument`"]
    );
    assert!(open(r#", "sector": "banks""#).is_ok());
}

#[test]
fn instruments_may_come_later() {
    let mut gate =
        Gate::open(&params(r#"{"position": {"symbols": {"ES": {"max_quantity": 1}}}}"#), &[], None).unwrap();
    instruments().iter().for_each(|instrument| gate.add(instrument));
    let book = Book::new(3);
    assert_eq!(verdict(&mut gate, &book, buy(2, "1")), "");
    assert_eq!(verdict(&mut gate, &book, buy(2, "2")), "position.max_quantity");
}
