//! NORMAL, REDUCING, HALTED: what holds the account, since when, until when.
//!
//! There are four holds: the graph's `state`, a command, the day's loss, the drawdown. The strictest counts. A hold that begins tells what to do
//! ([`Action`]); one that ends lets the next strictest show.

use serde::{Deserialize, Serialize};

use super::params::{BreakerAction, DailyLoss, Drawdown, GateParams};
use super::{Refusal, Wrong};
use crate::event::TradingState;
use crate::money::to_f64;
use crate::signal::Control;

mod day;

use day::Zone;

/// What the machine must do now, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Tell that the state changed.
    State {
        /// Its state now.
        state: TradingState,
        /// Which rule or command, and why.
        reason: String,
    },
    /// Cancel working orders that could make a position larger.
    CancelOpening,
    /// Cancel all working orders.
    CancelAll,
    /// Close all positions at market (after [`Action::CancelAll`]). The gate is not asked for these orders.
    Flatten,
}

/// The breakers of one account.
#[derive(Clone, Debug)]
pub(super) struct Breakers {
    graph: TradingState,
    daily: Option<Daily>,
    drawdown: Option<Drawdown>,
    state: BreakerState,
    /// When [`Breakers::advance`] next has something to do.
    due: i64,
}

#[derive(Clone, Debug)]
struct Daily {
    rule: DailyLoss,
    zone: Zone,
}

/// What they remember.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct BreakerState {
    /// The state that was told last.
    told: TradingState,
    commanded: Option<Control>,
    /// Why, as whoever commanded it says.
    commanded_why: String,
    /// Equity as last marked; NaN: never.
    equity: f64,
    /// End of the day that equity was last marked in; `i64::MIN`: never.
    day_end: i64,
    /// Equity at the day's start.
    day_start: f64,
    daily: Option<Hold>,
    /// Highest equity; NaN: begins anew with the next mark.
    peak: f64,
    drawdown: Option<Hold>,
}

/// A breaker that went off.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hold {
    /// `i64::MAX`: until a `resume`.
    until: i64,
    action: BreakerAction,
    reason: String,
}

impl Breakers {
    pub(super) fn new(params: &GateParams, wrong: &mut Wrong) -> Self {
        let daily = params.daily_loss.as_ref().and_then(|rule| match Zone::new(rule.zone.as_deref()) {
            Ok(zone) => Some(Daily { rule: rule.clone(), zone }),
            Err(reason) => {
                wrong.push(("daily_loss.zone".into(), reason));
                None
            }
        });
        let state = BreakerState {
            told: TradingState::Normal,
            commanded: None,
            commanded_why: String::new(),
            equity: f64::NAN,
            day_end: i64::MIN,
            day_start: f64::NAN,
            daily: None,
            peak: f64::NAN,
            drawdown: None,
        };
        let (graph, drawdown) = (params.state.into(), params.drawdown.clone());
        let mut breakers = Self { graph, daily, drawdown, state, due: i64::MAX };
        breakers.set_due();
        breakers
    }

    fn set_due(&mut self) {
        let holds = [&self.state.daily, &self.state.drawdown];
        self.due = match self.state_at(i64::MIN) == self.state.told {
            true => holds.into_iter().flatten().map(|hold| hold.until).min().unwrap_or(i64::MAX),
            // At the start, and where the graph's own state is another since a restart.
            false => i64::MIN,
        };
    }

    pub(super) fn mark(&mut self, now: i64, equity: f64, out: &mut Vec<Action>) {
        self.advance(now, out);
        if !equity.is_finite() {
            return;
        }
        let begun = self.mark_daily(now, equity).max(self.mark_drawdown(now, equity));
        self.state.equity = equity;
        if let Some(action) = begun {
            self.begin(now, action, out);
        }
    }

    pub(super) fn transferred(&mut self, amount: f64) {
        if amount.is_finite() {
            let state = &mut self.state;
            // What is NaN stays so.
            [&mut state.equity, &mut state.day_start, &mut state.peak].into_iter().for_each(|e| *e += amount);
        }
    }

    pub(super) fn begin_anew(&mut self) {
        let state = &mut self.state;
        (state.equity, state.day_start, state.peak, state.day_end) = (f64::NAN, f64::NAN, f64::NAN, i64::MIN);
    }

    /// Whether a hold that closes everything lasts at `now`.
    pub(super) fn flattens(&self, now: i64) -> bool {
        let holds = [&self.state.daily, &self.state.drawdown];
        let flattens = |hold: &Hold| hold.until > now && hold.action == BreakerAction::Flatten;
        self.state.commanded == Some(Control::Flatten) || holds.into_iter().flatten().any(flattens)
    }

    fn mark_daily(&mut self, now: i64, equity: f64) -> Option<BreakerAction> {
        let daily = self.daily.as_ref()?;
        let state = &mut self.state;
        if now >= state.day_end {
            state.day_end = daily.zone.day_end(now);
            state.day_start = if state.equity.is_nan() { equity } else { state.equity };
        }
        if state.daily.is_some() {
            return None;
        }
        let loss = state.day_start - equity;
        let (limit, of_start) = match (daily.rule.amount, daily.rule.fraction) {
            (Some(amount), _) => (to_f64(amount.0), String::new()),
            (None, fraction) => {
                let fraction = fraction.map_or(0.0, |fraction| to_f64(fraction.0));
                (fraction * state.day_start.max(0.0), format!(" ({} %)", percent(fraction)))
            }
        };
        if !beyond(loss, limit, state.day_start) {
            return None;
        }
        let start = state.day_start;
        let reason =
            format!("{loss:.2} lost since the day's start at {start:.2}, the limit is {limit:.2}{of_start}");
        state.daily = Some(Hold { until: state.day_end, action: daily.rule.action, reason });
        Some(daily.rule.action)
    }

    fn mark_drawdown(&mut self, now: i64, equity: f64) -> Option<BreakerAction> {
        let rule = self.drawdown.as_ref()?;
        let state = &mut self.state;
        if state.drawdown.is_some() {
            return None;
        }
        if state.peak.is_nan() || equity > state.peak {
            state.peak = equity;
        }
        let (fall, max) = (state.peak - equity, to_f64(rule.max.0));
        if !(state.peak > 0.0 && beyond(fall, max * state.peak, state.peak)) {
            return None;
        }
        let reason = format!(
            "equity {equity:.2} is {} % below its peak of {:.2}, the limit is {} %",
            percent(fall / state.peak),
            state.peak,
            percent(max)
        );
        let until = rule.cool_down.map_or(i64::MAX, |span| now.saturating_add(span.ns()));
        state.drawdown = Some(Hold { until, action: rule.action, reason });
        Some(rule.action)
    }

    /// Tells what a hold that has just begun asks for.
    fn begin(&mut self, now: i64, action: BreakerAction, out: &mut Vec<Action>) {
        let before = self.state.told;
        self.tell(now, out);
        match action {
            BreakerAction::Flatten => out.extend([Action::CancelAll, Action::Flatten]),
            BreakerAction::Halt if before != TradingState::Halted => out.push(Action::CancelAll),
            BreakerAction::Reduce if before == TradingState::Normal => out.push(Action::CancelOpening),
            BreakerAction::Halt | BreakerAction::Reduce => {}
        }
    }

    pub(super) fn advance(&mut self, now: i64, out: &mut Vec<Action>) {
        if now < self.due {
            return;
        }
        let state = &mut self.state;
        if state.daily.as_ref().is_some_and(|hold| hold.until <= now) {
            state.daily = None;
        }
        if state.drawdown.as_ref().is_some_and(|hold| hold.until <= now) {
            state.drawdown = None;
            state.peak = f64::NAN;
        }
        // The graph's own state has not been told at the start, and may differ from the one before a restart.
        if severity(self.graph) > severity(state.told) {
            let action = match self.graph {
                TradingState::Halted => BreakerAction::Halt,
                _ => BreakerAction::Reduce,
            };
            self.begin(now, action, out);
        } else {
            self.tell(now, out);
        }
    }

    pub(super) fn next_due(&self) -> i64 {
        self.due
    }

    pub(super) fn control(&mut self, now: i64, control: Control, why: &str, out: &mut Vec<Action>) {
        self.advance(now, out);
        let action = match control {
            Control::Resume => {
                let state = &mut self.state;
                (state.commanded, state.daily, state.drawdown) = (None, None, None);
                (state.day_start, state.peak) = (state.equity, state.equity);
                return self.tell(now, out);
            }
            Control::Halt => BreakerAction::Halt,
            Control::Flatten => BreakerAction::Flatten,
            Control::Reduce => BreakerAction::Reduce,
        };
        // A weaker command does not lift a stronger one: `resume` does.
        let strength = |control: Option<Control>| match control {
            None | Some(Control::Resume) => 0,
            Some(Control::Reduce) => 1,
            Some(Control::Halt) => 2,
            Some(Control::Flatten) => 3,
        };
        if strength(Some(control)) > strength(self.state.commanded) {
            self.state.commanded = Some(control);
            self.state.commanded_why = if why.is_empty() { "commanded" } else { why }.to_owned();
        }
        self.begin(now, action, out);
    }

    fn tell(&mut self, now: i64, out: &mut Vec<Action>) {
        let state = self.state_at(now);
        if state != self.state.told {
            let reason = match self.strictest(now) {
                Some((_, rule, why)) => format!("{rule}: {why}"),
                None => "nothing holds it any more".into(),
            };
            out.push(Action::State { state, reason });
            self.state.told = state;
        }
        self.set_due();
    }

    fn state_at(&self, now: i64) -> TradingState {
        self.strictest(now).map_or(TradingState::Normal, |(state, _, _)| state)
    }

    /// The strictest hold at `now`, if there is one: what it allows, its rule, and why.
    fn strictest(&self, now: i64) -> Option<(TradingState, &'static str, &str)> {
        let (graph, commanded) = (self.graph, self.state.commanded);
        let (command, command_rule) = match commanded {
            None | Some(Control::Resume) => (TradingState::Normal, "control"),
            Some(Control::Reduce) => (TradingState::Reducing, "control.reduce"),
            Some(Control::Halt) => (TradingState::Halted, "control.halt"),
            Some(Control::Flatten) => (TradingState::Halted, "control.flatten"),
        };
        let daily_rule = self.daily.as_ref().map_or("daily_loss", Daily::rule_name);
        let held = |hold: &Option<Hold>| match hold.as_ref().filter(|hold| hold.until > now) {
            None => TradingState::Normal,
            Some(hold) if hold.action == BreakerAction::Reduce => TradingState::Reducing,
            Some(_) => TradingState::Halted,
        };
        fn why(hold: &Option<Hold>) -> &str {
            hold.as_ref().map_or("", |hold| &hold.reason)
        }
        let (daily, drawdown) = (&self.state.daily, &self.state.drawdown);
        let holds = [
            (graph, "state", "the graph says so"),
            (command, command_rule, self.state.commanded_why.as_str()),
            (held(daily), daily_rule, why(daily)),
            (held(drawdown), "drawdown.max", why(drawdown)),
        ];
        let mut strictest = None;
        for (state, rule, why) in holds {
            if severity(state) > strictest.map_or(0, |(state, _, _)| severity(state)) {
                strictest = Some((state, rule, why));
            }
        }
        strictest
    }

    /// Whether an order passes the state that holds at `now`.
    pub(super) fn check(&self, now: i64, reduces: bool) -> Result<(), Refusal> {
        match self.strictest(now) {
            Some((TradingState::Halted, rule, why)) => {
                Err(Refusal::new(rule, format!("trading is halted: {why}")))
            }
            Some((TradingState::Reducing, rule, why)) if !reduces => {
                let detail = format!("only orders that make positions smaller pass: {why}");
                Err(Refusal::new(rule, detail))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn state(&self) -> TradingState {
        self.state.told
    }

    pub(super) fn save(&self) -> BreakerState {
        self.state.clone()
    }

    pub(super) fn restore(&mut self, state: BreakerState) {
        self.state = state;
        self.set_due();
    }
}

impl Daily {
    fn rule_name(&self) -> &'static str {
        if self.rule.amount.is_some() { "daily_loss.amount" } else { "daily_loss.fraction" }
    }
}

fn severity(state: TradingState) -> u8 {
    match state {
        TradingState::Normal => 0,
        TradingState::Reducing => 1,
        TradingState::Halted => 2,
    }
}

/// Equity is a sum of floats: what differs by its rounding alone has met the limit, not passed it.
fn beyond(loss: f64, limit: f64, equity: f64) -> bool {
    loss > limit + 1e-12 * equity.abs()
}

fn percent(fraction: f64) -> f64 {
    (fraction * 1e6).round() / 1e4
}
