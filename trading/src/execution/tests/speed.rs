//! A measurement, not a test: `cargo test -p tidemill-trading --lib -- --ignored speed`.

use super::*;

#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn speed_of_ticks() {
    for (name, with, position) in [
        ("nothing held", json!({}), false),
        ("held", json!({}), true),
        (
            "held, guarded",
            json!({ "protect": { "stop_loss": { "fraction": 0.5 }, "take_profit": { "fraction": 0.5 } } }),
            true,
        ),
        ("held, drawdown", json!({ "risk": { "drawdown": { "max": 0.9 } } }), true),
    ] {
        let mut desk = Desk::new(with);
        desk.quote(S, 99.0, 100.0);
        if position {
            desk.want(2 * S, Want::Long);
        }
        let n = 20_000_000i64;
        let start = std::time::Instant::now();
        for k in 0..n {
            let price = 100.0 + (k & 7) as f64 / 100.0;
            let tick =
                Tick { ts: 3 * S + k * 1000, instrument: 0, market: Market::Trade { price, size: 5.0 } };
            desk.machine.market(std::hint::black_box(&tick), &mut desk.events);
        }
        println!("{name}: {:.1} ns a tick", start.elapsed().as_nanos() as f64 / n as f64);
    }
}
