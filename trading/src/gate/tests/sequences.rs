//! No sequence of orders, fills and cancels gets beyond a limit: the oracle knows nothing of worst cases, it has a venue that fills what it likes.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// An order is wanted; it is sent where the gate lets it.
    Order {
        instrument: u32,
        buy: bool,
        quantity: u32,
        price: u32,
        reduce_only: bool,
    },
    /// A part (in hundredths) of the rest of a working order is filled.
    Fill(prop::sample::Index, u32),
    Cancel(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let order = (0u32..3, any::<bool>(), 1u32..90, 80u32..125, prop::bool::weighted(0.15)).prop_map(
        |(instrument, buy, quantity, price, reduce_only)| Step::Order {
            instrument,
            buy,
            quantity,
            price,
            reduce_only,
        },
    );
    let fill = (any::<prop::sample::Index>(), 1u32..=100).prop_map(|(which, part)| Step::Fill(which, part));
    let cancel = any::<prop::sample::Index>().prop_map(Step::Cancel);
    prop::collection::vec(prop_oneof![5 => order, 4 => fill, 1 => cancel], 1..60)
}

#[derive(Clone, Debug)]
struct Resting {
    instrument: usize,
    sign: Decimal,
    rest: Decimal,
    reduce_only: bool,
}

/// A venue that fills at its whim, and cuts reduce-only orders as venues do.
#[derive(Clone, Debug)]
struct Venue {
    book: Book,
    orders: Vec<Resting>,
}

impl Venue {
    fn fill(&mut self, which: usize, part: u32) {
        let order = &mut self.orders[which];
        let held = &mut self.book.position[order.instrument];
        let mut units = order.rest * Decimal::new(part.into(), 2);
        if order.reduce_only {
            let room = if (*held * order.sign) < Decimal::ZERO { held.abs() } else { Decimal::ZERO };
            units = units.min(room);
        }
        *held += units * order.sign;
        order.rest -= units;
        if order.rest.is_zero() || (order.reduce_only && units.is_zero()) {
            self.orders.remove(which);
        }
        self.tell();
    }

    /// Writes down what works, for the gate.
    fn tell(&mut self) {
        self.book.working = vec![Working::default(); 3];
        for order in &self.orders {
            let working = &mut self.book.working[order.instrument];
            let sum = match (order.sign > Decimal::ZERO, order.reduce_only) {
                (true, false) => &mut working.buys,
                (false, false) => &mut working.sells,
                (true, true) => &mut working.reducing_buys,
                (false, true) => &mut working.reducing_sells,
            };
            *sum += order.rest;
        }
    }

    /// The account as it is, held against each limit of `RULES`: written anew from the words of the manual.
    fn within_limits(&self) -> Result<(), TestCaseError> {
        let units = |i: usize| self.book.position[i].abs();
        let value = |i: usize| units(i) * [d("100"), d("80"), d("5000")][i];
        prop_assert!(units(0) <= d("150") && units(1) <= d("100") && units(2) <= d("100"));
        prop_assert!(value(0) <= d("9000") && value(1) <= d("9000") && value(2) <= d("20000"));
        prop_assert!(value(0) + value(1) <= d("12000"), "sector, venue");
        prop_assert!(value(0) + value(1) + value(2) <= d("25000"), "gross");
        prop_assert!(value(0) + value(1) + value(2) <= d("24000"), "leverage: 2 x 12000");
        (0..3).try_for_each(|i| {
            prop_assert!(value(i) <= d("18000"), "concentration: 1.5 x 12000");
            Ok(())
        })
    }

    /// The furthest that a position can go in a direction, by trying each set of working orders.
    fn worst_end(&self, instrument: usize, direction: Decimal) -> Decimal {
        let mut alone = self.clone();
        alone.orders.retain(|order| order.instrument == instrument);
        alone.outcomes().into_iter().map(|held| held[instrument] * direction).max().unwrap()
    }

    /// The most that net exposure can be either way, by trying each set of working orders.
    fn worst_net(&self) -> Decimal {
        let nets = self
            .outcomes()
            .into_iter()
            .map(|held| held[0] * d("100") + held[1] * d("80") + held[2] * d("5000"));
        nets.map(|net| net.abs()).max().unwrap()
    }

    /// What can be held in the end.
    fn outcomes(&self) -> Vec<Vec<Decimal>> {
        let mut outcomes = Vec::new();
        for (chosen, first) in
            (0u32..1 << self.orders.len()).flat_map(|chosen| [(chosen, false), (chosen, true)])
        {
            let mut held = self.book.position.clone();
            // Reduce-only ones go as far as there is something to reduce, before the others or after them.
            for reduce_only in [first, !first] {
                let picked = self
                    .orders
                    .iter()
                    .enumerate()
                    .filter(|(n, o)| chosen & (1 << n) != 0 && o.reduce_only == reduce_only);
                for (_, order) in picked {
                    let held = &mut held[order.instrument];
                    let room = if (*held * order.sign) < Decimal::ZERO { held.abs() } else { Decimal::ZERO };
                    let units = if reduce_only { order.rest.min(room) } else { order.rest };
                    *held += units * order.sign;
                }
            }
            outcomes.push(held);
        }
        outcomes
    }
}

const RULES: &str = r#"{
    "order": {"max_quantity": 80},
    "position": {"max_quantity": 100, "max_notional": 9000, "symbols": {"BAC": {"max_quantity": 150}, "ES": {"max_notional": 20000}}},
    "sector": {"banks": 12000}, "venue": {"nyse": 12000, "cme": 20000},
    "gross": 25000, "leverage": 2, "concentration": {"max": 1.5}
}"#;

fn venue() -> Venue {
    let mut book = Book::new(3);
    book.equity = 12_000.0;
    book.price = vec![100.0, 80.0, 100.0];
    Venue { book, orders: Vec::new() }
}

fn ask(gate: &mut Gate, venue: &mut Venue, step: &Step) -> Option<OrderIntent> {
    let Step::Order { instrument, buy, quantity, price, reduce_only } = *step else { return None };
    let side = if buy { Side::Buy } else { Side::Sell };
    // A contract of the future is worth fifty times its price.
    let quantity = if instrument == 2 { quantity % 5 + 1 } else { quantity };
    let order = OrderIntent {
        price: Decimal::from(price),
        reduce_only,
        ..market(instrument, side, &quantity.to_string())
    };
    gate.check(0, &order, &venue.book).ok()?;
    venue.orders.push(Resting {
        instrument: instrument as usize,
        sign: side.sign(),
        rest: order.quantity,
        reduce_only,
    });
    venue.tell();
    Some(order)
}

proptest! {
    #[test]
    fn limits_hold_whatever_is_filled(steps in steps(), rest in prop::collection::vec(any::<prop::sample::Index>(), 80)) {
        let mut gate = gate(RULES);
        let mut venue = venue();
        for step in &steps {
            match step {
                Step::Order { .. } => {
                    ask(&mut gate, &mut venue, step);
                }
                Step::Fill(which, part) if !venue.orders.is_empty() => {
                    let which = which.index(venue.orders.len());
                    venue.fill(which, *part);
                }
                Step::Cancel(which) if !venue.orders.is_empty() => {
                    let which = which.index(venue.orders.len());
                    venue.orders.remove(which);
                    venue.tell();
                }
                _ => {}
            }
            venue.within_limits()?;
        }
        // All that still works is filled, in any order.
        for which in rest {
            if venue.orders.is_empty() {
                break;
            }
            let which = which.index(venue.orders.len());
            venue.fill(which, 100);
            venue.within_limits()?;
        }
    }

    #[test]
    fn net_exposure_holds_but_for_orders_that_make_positions_smaller(steps in steps()) {
        let mut gate = gate(r#"{"net": 9000}"#);
        let mut venue = venue();
        let mut bound = d("9000");
        for step in &steps {
            match step {
                Step::Order { .. } if venue.orders.len() < 8 => {
                    let held = venue.clone();
                    if let Some(order) = ask(&mut gate, &mut venue, step) {
                        let i = order.instrument as usize;
                        // Its own instrument's worst end that way was not there before, and is not now.
                        let ends = |venue: &Venue| venue.worst_end(i, order.side.sign());
                        if order.reduce_only || (ends(&held) <= Decimal::ZERO && ends(&venue) <= Decimal::ZERO) {
                            bound = bound.max(venue.worst_net());
                        }
                    }
                }
                Step::Fill(which, part) if !venue.orders.is_empty() => {
                    let which = which.index(venue.orders.len());
                    venue.fill(which, *part);
                }
                Step::Cancel(which) if !venue.orders.is_empty() => {
                    let which = which.index(venue.orders.len());
                    venue.orders.remove(which);
                    venue.tell();
                }
                _ => {}
            }
            prop_assert!(venue.worst_net() <= bound);
        }
    }

    /// Saved and restored at any point is never stopped.
    #[test]
    fn a_restored_gate_goes_on(steps in steps(), marks in prop::collection::vec(9_000.0f64..12_000.0, 60), cut in 0usize..60) {
        let rules = r#"{"rate": {"orders": 3, "per": "5ns"}, "drawdown": {"max": 0.2, "cool_down": "7ns", "action": "reduce"},
                        "daily_loss": {"amount": 2000}, "stale": "4ns", "position": {"max_quantity": 100}}"#;
        let (mut whole, mut cut_gate) = (gate(rules), gate(rules));
        let (mut told, mut told_cut) = (Vec::new(), Vec::new());
        let mut venue = venue();
        for (n, (step, equity)) in steps.iter().zip(marks).enumerate() {
            if n == cut {
                let bytes = postcard::to_stdvec(&cut_gate.save()).unwrap();
                cut_gate = gate(rules);
                cut_gate.restore(postcard::from_bytes(&bytes).unwrap());
            }
            let now = n as i64;
            for (gate, told) in [(&mut whole, &mut told), (&mut cut_gate, &mut told_cut)] {
                if n % 3 == 0 {
                    gate.observe(&Tick { ts: now, instrument: (n % 2) as u32, market: crate::market::Market::Trade { price: 100.0, size: 1.0 } });
                }
                gate.mark(now, equity, told);
                prop_assert_eq!(gate.next_due() > now, true);
            }
            if let Step::Order { instrument, buy, quantity, .. } = *step {
                let side = if buy { Side::Buy } else { Side::Sell };
                let order = market(instrument, side, &quantity.to_string());
                prop_assert_eq!(whole.check(now, &order, &venue.book), cut_gate.check(now, &order, &venue.book));
            }
            venue.book.position[0] += d("1");
            prop_assert_eq!(&told, &told_cut);
            prop_assert_eq!(whole.state(), cut_gate.state());
        }
    }
}
