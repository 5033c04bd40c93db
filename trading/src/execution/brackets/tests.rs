use super::*;

fn d(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn fraction(text: &str) -> Option<Distance> {
    Some(Distance::Fraction(Exact(d(text))))
}

const CENT: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

#[test]
fn levels_lie_around_the_average_price() {
    let params =
        ProtectParams { stop_loss: fraction("0.02"), take_profit: fraction("0.05"), ..Default::default() };
    let long = Guard::new(&params, true, d("33.33"), &Asked::default(), CENT);
    // 33.33 x 0.98 = 32.6634, down to the tick; x 1.05 = 34.9965, up to it.
    assert_eq!((long.stop, long.take), (Some(d("32.66")), Some(d("35.00"))));
    let short = Guard::new(&params, false, d("33.33"), &Asked::default(), CENT);
    assert_eq!((short.stop, short.take), (Some(d("34.00")), Some(d("31.66"))));
}

#[test]
fn a_signals_prices_come_first_and_its_atr_scales() {
    let params = ProtectParams { stop_loss: Some(Distance::Atr(Exact(2.into()))), ..Default::default() };
    let asked = Asked { atr: Some(d("1.5")), take_profit: Some(d("110")), ..Default::default() };
    let guard = Guard::new(&params, true, 100.into(), &asked, CENT);
    assert_eq!((guard.stop, guard.take), (Some(97.into()), Some(110.into())));
    let asked = Asked { stop_loss: Some(d("99")), ..asked };
    assert_eq!(Guard::new(&params, true, 100.into(), &asked, CENT).stop, Some(99.into()));
    // Without an average true range there is no stop.
    assert_eq!(Guard::new(&params, true, 100.into(), &Asked::default(), CENT).stop, None);
}

#[test]
fn a_watch_sees_the_loss_first() {
    let guard = Guard { stop: Some(95.into()), take: Some(110.into()), trail: None };
    let mut watch = Watch::new(&guard, true, 100.0, None);
    assert_eq!((watch.low, watch.high), (95.0, 110.0));
    assert_eq!(watch.seen(95.01, 109.99), None);
    assert_eq!(watch.seen(95.0, 100.0), Some(Purpose::StopLoss));
    assert_eq!(watch.seen(100.0, 110.0), Some(Purpose::TakeProfit));
    assert_eq!(watch.seen(90.0, 120.0), Some(Purpose::StopLoss));
    let guard = Guard { stop: Some(105.into()), take: Some(90.into()), trail: None };
    let mut short = Watch::new(&guard, false, 100.0, None);
    assert_eq!((short.low, short.high), (90.0, 105.0));
    assert_eq!(short.seen(100.0, 105.0), Some(Purpose::StopLoss));
    assert_eq!(short.seen(90.0, 100.0), Some(Purpose::TakeProfit));
}

#[test]
fn a_trailing_stop_follows_the_best_price_and_never_goes_back() {
    let guard = Guard { stop: None, take: None, trail: Some(Trail::Amount(5.into())) };
    let mut watch = Watch::new(&guard, true, 100.0, None);
    assert_eq!(watch.low, 95.0);
    // 100 -> 103 -> 101 -> 98: the stop is at 98 by then.
    for price in [103.0, 101.0] {
        assert_eq!(watch.seen(price, price), None);
    }
    assert_eq!(watch.low, 98.0);
    assert_eq!(watch.seen(98.0, 98.0), Some(Purpose::StopLoss));
    let grown = Watch::new(&guard, true, 101.0, Some(&watch));
    assert_eq!(grown.low, 98.0);
    let guard = Guard { trail: Some(Trail::Fraction(d("0.1"))), ..guard };
    let mut short = Watch::new(&guard, false, 100.0, None);
    assert_eq!(short.seen(80.0, 80.0), None);
    assert_eq!(short.high, 88.0);
    assert_eq!(short.seen(88.0, 88.0), Some(Purpose::StopLoss));
}

#[test]
fn problems_name_their_fields() {
    let params = ProtectParams {
        stop_loss: fraction("1.5"),
        take_profit: fraction("0"),
        trailing: fraction("0.1"),
        ..Default::default()
    };
    let paths: Vec<String> = params.problems().into_iter().map(|p| p.0).collect();
    assert_eq!(paths, ["stop_loss.fraction", "take_profit.fraction", "trailing"]);
}
