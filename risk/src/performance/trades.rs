//! Figures of closed trades (their profits after costs, in the account's currency), and of how much was held and traded.

use serde::{Deserialize, Serialize};

use super::moments::{checked, finite, mean, ratio};

/// What a list of closed trades made. A trade that made exactly nothing counts, but neither as won nor as lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trades {
    /// Closed trades.
    pub count: usize,
    /// Those that made more than nothing.
    pub won: usize,
    /// Those that lost.
    pub lost: usize,
    /// The sum of all profits.
    pub net: f64,
    /// The sum of the won ones' profits.
    pub gains: f64,
    /// The sum of the lost ones' losses, as a number above zero.
    pub losses: f64,
    /// won / count.
    pub win_rate: Option<f64>,
    /// gains / losses; none without a loss.
    pub profit_factor: Option<f64>,
    /// The mean profit of a trade.
    pub expectancy: Option<f64>,
    /// The mean gain / the mean loss; none unless both exist.
    pub payoff_ratio: Option<f64>,
    /// The mean profit of the won ones.
    pub mean_gain: Option<f64>,
    /// The mean loss of the lost ones, as a number above zero.
    pub mean_loss: Option<f64>,
    /// The best trade's profit.
    pub best: Option<f64>,
    /// The worst trade's profit.
    pub worst: Option<f64>,
    /// Most won in a row.
    pub longest_wins: usize,
    /// Most lost in a row.
    pub longest_losses: usize,
}

/// The figures of trades with these profits, in the order they closed; none if a profit is not finite.
pub fn trades(profits: &[f64]) -> Option<Trades> {
    checked(profits, 0)?;
    let mut out = Trades { count: profits.len(), ..Trades::default() };
    let (mut wins, mut losses) = (0, 0);
    for &profit in profits {
        wins = if profit > 0.0 { wins + 1 } else { 0 };
        losses = if profit < 0.0 { losses + 1 } else { 0 };
        out.won += usize::from(profit > 0.0);
        out.lost += usize::from(profit < 0.0);
        out.gains += profit.max(0.0);
        out.losses -= profit.min(0.0);
        out.longest_wins = out.longest_wins.max(wins);
        out.longest_losses = out.longest_losses.max(losses);
    }
    out.net = finite(out.gains - out.losses)?;
    out.win_rate = ratio(out.won as f64, out.count as f64);
    out.profit_factor = ratio(out.gains, out.losses);
    out.expectancy = ratio(out.net, out.count as f64);
    out.mean_gain = ratio(out.gains, out.won as f64);
    out.mean_loss = ratio(out.losses, out.lost as f64);
    out.payoff_ratio = out.mean_gain.zip(out.mean_loss).and_then(|(gain, loss)| ratio(gain, loss));
    out.best = profits.iter().copied().max_by(f64::total_cmp);
    out.worst = profits.iter().copied().min_by(f64::total_cmp);
    Some(out)
}

/// The part of periods in which something was held, of the exposure (any unit) in each.
pub fn time_in_market(exposures: &[f64]) -> Option<f64> {
    let held = checked(exposures, 1)?.iter().filter(|x| **x != 0.0).count();
    ratio(held as f64, exposures.len() as f64)
}

/// The mean of gross exposure over equity: 1 is fully invested without leverage. Both per period; equity must be above zero.
pub fn mean_exposure(gross: &[f64], equity: &[f64]) -> Option<f64> {
    if checked(gross, 1)?.len() != checked(equity, 1)?.len() || equity.iter().any(|x| *x <= 0.0) {
        return None;
    }
    mean(&gross.iter().zip(equity).map(|(gross, equity)| gross.abs() / equity).collect::<Vec<f64>>())
}

/// Turnover a year: what was bought and sold (sum of |notional|), halved so that one round trip of the whole account is 1, over the mean
/// equity and the years.
pub fn annual_turnover(traded: f64, mean_equity: f64, years: f64) -> Option<f64> {
    let sound = traded >= 0.0 && mean_equity > 0.0 && years > 0.0;
    if sound { finite(0.5 * traded / mean_equity / years) } else { None }
}
