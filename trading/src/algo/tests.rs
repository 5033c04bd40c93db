use proptest::prelude::*;

use super::*;

fn exact(text: &str) -> Exact {
    Exact(Decimal::from_str_exact(text).unwrap())
}

fn d(text: &str) -> Decimal {
    exact(text).0
}

fn span(text: &str) -> Span {
    text.parse().unwrap()
}

/// What is sent at each of these times.
fn sent(schedule: &mut Schedule, times: &[i64]) -> Vec<String> {
    times.iter().map(|t| schedule.due(*t).normalize().to_string()).collect()
}

#[test]
fn twap_sends_equal_parts_at_equal_steps() {
    let params = AlgoParams::Twap { over: span("10ns"), slices: 4 };
    let mut schedule = Schedule::new(&params, 100, 10.into(), Decimal::ONE);
    // 10 / 4 = 2.5 a slice: 2, 5, 7, 10 in all, at 100, 102, 105, 107.
    assert_eq!(schedule.next_due(), 100);
    assert_eq!(sent(&mut schedule, &[100]), ["2"]);
    assert_eq!(schedule.next_due(), 102);
    assert_eq!(sent(&mut schedule, &[101, 102, 104, 105, 107]), ["0", "3", "0", "2", "3"]);
    assert_eq!((schedule.next_due(), schedule.rest()), (i64::MAX, Decimal::ZERO));
}

#[test]
fn a_late_call_makes_up_for_what_was_missed() {
    let params = AlgoParams::Twap { over: span("10ns"), slices: 5 };
    let mut schedule = Schedule::new(&params, 0, d("1"), d("0.1"));
    assert_eq!(sent(&mut schedule, &[0, 7, 8]), ["0.2", "0.6", "0.2"]);
}

#[test]
fn vwap_follows_the_profile() {
    let params = AlgoParams::Vwap { over: span("30ns"), profile: vec![exact("5"), exact("1"), exact("4")] };
    let mut schedule = Schedule::new(&params, 0, 200.into(), 1.into());
    assert_eq!(sent(&mut schedule, &[0, 9, 10, 20, 99]), ["100", "0", "20", "80", "0"]);
}

#[test]
fn pov_sends_a_part_of_what_is_traded_once_it_is_worth_it() {
    let params = AlgoParams::Pov { rate: exact("0.1"), min: Some(exact("5")), over: Some(span("100ns")) };
    let mut schedule = Schedule::new(&params, 0, 20.into(), 1.into());
    schedule.traded(49.0);
    assert_eq!(sent(&mut schedule, &[1]), ["0"]);
    schedule.traded(10.0);
    schedule.traded(f64::NAN);
    // 59 x 0.1 = 5.9: five whole lots.
    assert_eq!(sent(&mut schedule, &[2]), ["5"]);
    schedule.traded(45.0);
    // 10.4 by now.
    assert_eq!(sent(&mut schedule, &[3]), ["5"]);
    assert_eq!(schedule.rest(), 10.into());
    assert_eq!(sent(&mut schedule, &[100]), ["0"]);
    assert_eq!((schedule.rest(), schedule.next_due()), (Decimal::ZERO, i64::MAX));
}

#[test]
fn pov_ends_with_what_is_left_though_it_is_less_than_a_slice() {
    let params = AlgoParams::Pov { rate: exact("0.5"), min: Some(exact("5")), over: None };
    let mut schedule = Schedule::new(&params, 0, 7.into(), 1.into());
    schedule.traded(10.0);
    assert_eq!(sent(&mut schedule, &[1]), ["5"]);
    schedule.traded(1000.0);
    assert_eq!(sent(&mut schedule, &[2]), ["2"]);
}

#[test]
fn an_iceberg_shows_one_part_at_a_time() {
    let mut schedule = Schedule::new(&AlgoParams::Iceberg { display: exact("4") }, 0, 10.into(), 1.into());
    assert_eq!(sent(&mut schedule, &[0, 1]), ["4", "0"]);
    schedule.slice_filled(5);
    assert_eq!(sent(&mut schedule, &[5, 6]), ["4", "0"]);
    schedule.slice_filled(7);
    assert_eq!(sent(&mut schedule, &[7]), ["2"]);
    assert_eq!(schedule.rest(), Decimal::ZERO);
}

#[test]
fn problems_name_their_fields() {
    let paths = |params: AlgoParams| params.problems().into_iter().map(|p| p.0).collect::<Vec<_>>();
    assert_eq!(paths(AlgoParams::Twap { over: Span::default(), slices: 0 }), ["twap.over", "twap.slices"]);
    assert_eq!(paths(AlgoParams::Vwap { over: span("1s"), profile: vec![exact("0")] }), ["vwap.profile"]);
    assert_eq!(paths(AlgoParams::Pov { rate: exact("2"), min: None, over: None }), ["pov.rate"]);
    assert_eq!(paths(AlgoParams::Iceberg { display: exact("0") }), ["iceberg.display"]);
}

proptest! {
    /// Whenever it is called, slices are multiples of the lot (but the last), sum to the whole, and are never ahead of the profile.
    #[test]
    fn slices_sum_to_the_whole(
        total in 1i64..5000,
        weights in proptest::collection::vec(0u32..9, 1..20),
        mut times in proptest::collection::vec(0i64..1200, 1..40),
    ) {
        prop_assume!(weights.iter().sum::<u32>() > 0);
        let profile: Vec<Exact> = weights.iter().map(|w| Exact((*w).into())).collect();
        let params = AlgoParams::Vwap { over: span("1us"), profile };
        let (total, lot) = (Decimal::new(total, 1), Decimal::ONE);
        let mut schedule = Schedule::new(&params, 0, total, lot);
        times.sort_unstable();
        times.push(1200);
        let mut all = Decimal::ZERO;
        for t in times {
            let slice = schedule.due(t);
            all += slice;
            let passed = (0..weights.len()).filter(|k| (*k as i64) * 1000 / weights.len() as i64 <= t).count();
            let part = f64::from(weights[..passed].iter().sum::<u32>()) / f64::from(weights.iter().sum::<u32>());
            prop_assert!(crate::money::to_f64(all) <= crate::money::to_f64(total) * part + 1e-9);
            prop_assert!(slice == crate::money::floor_to(slice, lot) || all == total);
            prop_assert_eq!(schedule.rest(), total - all);
        }
        prop_assert_eq!(all, total);
    }
}
