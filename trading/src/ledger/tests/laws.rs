//! What holds whatever happens.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::report::CashReason;

const INSTRUMENTS: &str = r#"[
    {"symbol": "STOCK", "borrow_rate": 0.1},
    {"symbol": "COIN", "quote": "EUR", "base": "BTC", "lot": "0.0001"},
    {"symbol": "PERP", "class": "perpetual", "multiplier": 10},
    {"symbol": "FUT", "class": "future", "multiplier": 50, "quote": "EUR"},
    {"symbol": "OPT", "class": "option", "multiplier": 100}]"#;
const MULTIPLIERS: [i64; 5] = [1, 1, 10, 50, 100];
const QUOTES: [usize; 5] = [0, 1, 0, 1, 0];

#[derive(Clone, Debug)]
enum Op {
    Fill { instrument: usize, quantity: i64, price: i64, fee: i64, currency: usize },
    Again,
    Mark { instrument: usize, price: i64 },
    Split { instrument: usize, ratio: usize, fractions: bool },
    Dividend { instrument: usize, cents: i64 },
    Funding { instrument: usize, points: i64 },
    Cash { currency: usize, cents: i64 },
    Midnight,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..5usize, (-40..40i64).prop_filter("", |n| *n != 0), 100..20_000i64, -50..200i64, 0..3usize).prop_map(
            |(instrument, quantity, price, fee, currency)| Op::Fill { instrument, quantity, price, fee, currency }
        ),
        1 => Just(Op::Again),
        4 => (0..5usize, 100..20_000i64).prop_map(|(instrument, price)| Op::Mark { instrument, price }),
        1 => (0..5usize, 0..4usize, any::<bool>())
            .prop_map(|(instrument, ratio, fractions)| Op::Split { instrument, ratio, fractions }),
        1 => (0..5usize, 1..300i64).prop_map(|(instrument, cents)| Op::Dividend { instrument, cents }),
        1 => (0..5usize, -20..20i64).prop_map(|(instrument, points)| Op::Funding { instrument, points }),
        1 => (0..2usize, -5_000..5_000i64).prop_map(|(currency, cents)| Op::Cash { currency, cents }),
        1 => Just(Op::Midnight),
    ]
}

/// Another way to keep books: everything is bought with cash at once, futures too, and nothing is known of costs, lots or profits. What the
/// account is worth is then cash and all units at their marks.
#[derive(Default)]
struct Naive {
    cash: [Decimal; 2],
    units: [Decimal; 5],
    marks: [Option<Decimal>; 5],
}

impl Naive {
    fn worth(&self, currency: usize) -> Decimal {
        let value =
            |i: usize| self.units[i] * self.marks[i].unwrap_or_default() * Decimal::from(MULTIPLIERS[i]);
        self.cash[currency] + (0..5).filter(|&i| QUOTES[i] == currency).map(value).sum::<Decimal>()
    }
}

fn run(method: &str, ops: &[Op]) {
    let account = format!(
        r#"{{"kind": "margin", "pnl": "{method}", "interest": 0.05, "cash": {{"USD": 1000, "EUR": 500}},
            "rates": [{{"from": "EUR", "to": "USD", "rate": 1.25}}]}}"#
    );
    let mut ledger = ledger(&account, INSTRUMENTS);
    let fresh = ledger.clone();
    let mut naive = Naive { cash: [d("1000"), d("500")], ..Naive::default() };
    let names = ["USD", "EUR", "BTC"];
    let ratios = [d("2"), d("0.5"), d("0.2"), d("3")];
    let mut last: Option<Fill> = None;
    for (n, op) in ops.iter().enumerate() {
        let ts = n as i64;
        match *op {
            Op::Fill { instrument, quantity, price, fee, currency } => {
                // A fee in coins is one of instrument 1 only; for the others dollars.
                let currency = if currency == 2 && instrument != 1 { 0 } else { currency };
                let fill = Fill {
                    fee_currency: names[currency].into(),
                    fee: Decimal::new(fee, 2),
                    price: Decimal::new(price, 2),
                    ..fill(n as u32, instrument as u32, &quantity.to_string(), "1", "0")
                };
                let booked = ledger.fill(ts, &fill).unwrap();
                let signed = Decimal::from(quantity);
                naive.cash[QUOTES[instrument]] -=
                    signed * fill.price * Decimal::from(MULTIPLIERS[instrument]);
                naive.units[instrument] += signed;
                match currency {
                    2 => naive.units[1] -= fill.fee,
                    other => naive.cash[other] -= fill.fee,
                }
                naive.marks[instrument] = naive.marks[instrument].or(Some(fill.price));
                assert_eq!(booked.position, naive.units[instrument]);
                last = Some(fill);
            }
            Op::Again => {
                if let Some(fill) = &last {
                    assert!(matches!(ledger.fill(ts, fill), Err(LedgerError::Duplicate { .. })));
                }
            }
            Op::Mark { instrument, price } => {
                let price = Decimal::new(price, 2);
                assert!(ledger.mark(instrument as u32, money::to_f64(price)));
                naive.marks[instrument] = Some(price);
            }
            Op::Split { instrument, ratio, fractions } => {
                // Prices keep two decimals: what is split is marked anew.
                let Some(mark) = naive.marks[instrument] else { continue };
                let paid = ledger.split(ts, instrument as u32, ratios[ratio], fractions).unwrap();
                naive.units[instrument] *= ratios[ratio];
                let near = money::to_f64(mark) / money::to_f64(ratios[ratio]);
                naive.marks[instrument] = money::from_f64(near);
                if let Some(paid) = paid {
                    naive.cash[QUOTES[instrument]] += paid.amount;
                    let whole =
                        money::floor_to(naive.units[instrument], ledger.instruments()[instrument].lot.0);
                    let price = money::from_f64(near).unwrap();
                    let amount =
                        (naive.units[instrument] - whole) * price * Decimal::from(MULTIPLIERS[instrument]);
                    assert!((amount - paid.amount).abs() <= Decimal::new(1, 16), "{amount} {}", paid.amount);
                    naive.units[instrument] = whole;
                }
            }
            Op::Dividend { instrument, cents } => {
                ledger.dividend(ts, instrument as u32, Decimal::new(cents, 2)).unwrap();
                let paid = naive.units[instrument] * Decimal::new(cents, 2);
                naive.cash[QUOTES[instrument]] += round8(paid);
            }
            Op::Funding { instrument, points } => {
                ledger.funding(ts, instrument as u32, points as f64 / 10_000.0).unwrap();
                let value = naive.units[instrument] * naive.marks[instrument].unwrap_or_default();
                let value = value * Decimal::from(MULTIPLIERS[instrument]);
                naive.cash[QUOTES[instrument]] -= round8(value * Decimal::new(points, 4));
            }
            Op::Cash { currency, cents } => {
                ledger
                    .cash_move(names[currency], Decimal::new(cents, 2), CashReason::Transfer, None)
                    .unwrap();
                naive.cash[currency] += Decimal::new(cents, 2);
            }
            Op::Midnight => {
                let mut moves = Vec::new();
                ledger.accrue(ledger.next_accrual().max(0), &mut moves).unwrap();
                for moved in moves {
                    let currency = names.iter().position(|name| *name == moved.currency).unwrap();
                    naive.cash[currency] += moved.amount;
                }
            }
        }
        for identity in ledger.identity().unwrap() {
            assert!(identity.holds(), "{op:?}: {identity:?}");
            if let Some(currency) = names.iter().position(|name| *name == identity.currency) {
                let differs = identity.there - naive.worth(currency);
                // A third of a price has no end, and 16 decimals of a product: nothing else may differ.
                let exact = !ops.iter().any(|op| matches!(op, Op::Split { .. }));
                let room = if exact { Decimal::ZERO } else { Decimal::new(1, 8) };
                assert!(differs.abs() <= room, "{op:?} in {}: {differs}", identity.currency);
            }
        }
        let equity = ledger.equity_exact().unwrap();
        let near = ledger.equity();
        assert!((money::to_f64(equity) - near).abs() <= 1e-9 * (1.0 + ledger.gross() + near.abs()));
        // Saved and restored: as if never stopped.
        let bytes = postcard::to_stdvec(ledger.state()).unwrap();
        let mut other = fresh.clone();
        other.restore(postcard::from_bytes(&bytes).unwrap()).unwrap();
        assert_eq!(postcard::to_stdvec(other.state()).unwrap(), bytes);
        assert_eq!((other.equity().to_bits(), other.held()), (ledger.equity().to_bits(), ledger.held()));
        if n % 2 == 0 {
            ledger = other;
        }
    }
}

fn round8(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(8, rust_decimal::RoundingStrategy::MidpointAwayFromZero)
}

/// Profit from scratch: each sale is matched with the units themselves, one by one.
fn fifo_unit_by_unit(fills: &[(i64, i64)]) -> (Decimal, Vec<i64>) {
    let (mut units, mut realized): (VecDeque<(i64, i64)>, i64) = (VecDeque::new(), 0);
    for &(quantity, price) in fills {
        for _ in 0..quantity.abs() {
            let sign = quantity.signum();
            match units.front() {
                Some(&(held, paid)) if held != sign => {
                    realized += (price - paid) * held;
                    units.pop_front();
                }
                _ => units.push_back((sign, price)),
            }
        }
    }
    (Decimal::new(realized, 2), units.into_iter().map(|(sign, price)| sign * price).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_to_the_last_digit(ops in prop::collection::vec(op(), 1..60), fifo: bool) {
        run(if fifo { "fifo" } else { "average" }, &ops);
    }

    #[test]
    fn without_splits_nothing_differs_at_all(ops in prop::collection::vec(op(), 1..60), fifo: bool) {
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Split { .. })).collect();
        run(if fifo { "fifo" } else { "average" }, &ops);
    }

    #[test]
    fn fifo_is_each_unit_by_itself(fills in prop::collection::vec(((-30..30i64).prop_filter("", |n| *n != 0), 1..10_000i64), 1..40)) {
        let mut ledger = ledger(r#"{"kind": "margin", "pnl": "fifo"}"#, STOCK);
        for (n, (quantity, price)) in fills.iter().enumerate() {
            ledger.fill(0, &fill(n as u32, 0, &quantity.to_string(), &Decimal::new(*price, 2).to_string(), "0")).unwrap();
            let (realized, units) = fifo_unit_by_unit(&fills[..=n]);
            let position = ledger.position(0);
            prop_assert_eq!(position.realized, realized);
            prop_assert_eq!(position.cost, Decimal::new(units.iter().sum(), 2));
            prop_assert_eq!(ledger.lots(0).map(|lot| lot.quantity).sum::<Decimal>(), position.quantity);
        }
    }

    /// In `f64`, from the textbook: the average changes only where the position grows.
    #[test]
    fn average_cost_is_the_textbook_s(fills in prop::collection::vec(((-30..30i64).prop_filter("", |n| *n != 0), 1..10_000i64), 1..40)) {
        let mut ledger = ledger(r#"{"kind": "margin"}"#, STOCK);
        let (mut held, mut average, mut realized) = (0.0f64, 0.0f64, 0.0f64);
        for (n, (quantity, cents)) in fills.iter().enumerate() {
            let (q, price) = (*quantity as f64, *cents as f64 / 100.0);
            if held * q >= 0.0 {
                average = (average * held + price * q) / (held + q);
            } else {
                realized += (price - average) * held.signum() * q.abs().min(held.abs());
                if q.abs() > held.abs() {
                    average = price;
                }
            }
            held += q;
            let booked = ledger.fill(0, &fill(n as u32, 0, &quantity.to_string(), &Decimal::new(*cents, 2).to_string(), "0")).unwrap();
            prop_assert_eq!(money::to_f64(booked.position), held);
            prop_assert!((money::to_f64(ledger.position(0).realized) - realized).abs() < 1e-8);
            if held != 0.0 {
                prop_assert!((money::to_f64(booked.average) - average).abs() < 1e-8);
            }
        }
    }
}
