//! What a tick costs. A figure to look at, not a test: run it with `--release -- --ignored --nocapture`.

use serde_json::json;

use super::*;
use Side::{Buy, Sell};

#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods)]
fn ticks() {
    for resting in [0, 10] {
        let mut venue = venue(json!({}));
        venue.quote(0, 99.0, 10.0, 100.0, 10.0);
        for n in 0..resting {
            let (side, price) = if n % 2 == 0 { (Buy, 90.0) } else { (Sell, 110.0) };
            venue.send(1, limit(n, side, "5", &format!("{}", price + n as f64 / 100.0)));
        }
        let quotes: Vec<Tick> = (0..1000)
            .map(|n| {
                let bid = 99.0 + f64::from(n % 7) / 100.0;
                let market =
                    Market::Quote { bid, bid_size: 10.0, ask: bid + 1.0, ask_size: f64::from(n % 11) };
                Tick { ts: 2 + i64::from(n), instrument: 0, market }
            })
            .collect();
        let trades: Vec<Tick> = quotes
            .iter()
            .map(|tick| Tick { market: Market::Trade { price: 99.5, size: tick.ts as f64 }, ..*tick })
            .collect();
        for (what, ticks) in [("quotes", &quotes), ("trades", &trades)] {
            let rounds = 5_000;
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                for tick in ticks {
                    venue.paper.tick(std::hint::black_box(tick), &mut venue.out);
                }
            }
            let ns = start.elapsed().as_nanos() as f64 / (rounds * ticks.len()) as f64;
            println!("{resting} resting, {what}: {ns:.1} ns a tick");
        }
        assert!(venue.paper.working().len() == resting as usize);
    }
}
