//! What a portfolio gains or loses when prices jump: named shocks, and options valued anew.
//!
//! Small moves of an option are told by its greeks ([`OptionPosition::exposure`], [`delta_gamma_vega`]); in a stress scenario, where moves
//! are large, it is valued anew ([`OptionPosition::shocked`]).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::options::{European, Greeks, OptionError, greeks, price};
use crate::portfolio::Exposure;

/// Moves of prices by name: a symbol, `sector:NAME`, `*` for everything else, and `vol`, which is added to the volatility of every
/// option (`0.1` makes 0.2 into 0.3). Moves of prices are parts of them: `-0.2` is a fall by a fifth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Shocks(pub BTreeMap<String, f64>);

impl Shocks {
    /// The move of a symbol's price: its own, else its sector's, else that of everything else, else nought.
    pub fn of(&self, symbol: &str, sector: Option<&str>) -> f64 {
        let own = || self.0.get(symbol);
        let sector = || self.0.get(&format!("sector:{}", sector?));
        let found = if symbol == VOL { sector() } else { own().or_else(sector) };
        found.or_else(|| self.0.get("*")).copied().unwrap_or(0.0)
    }

    /// What is added to volatilities.
    pub fn vol(&self) -> f64 {
        self.0.get(VOL).copied().unwrap_or(0.0)
    }

    /// The first shock that is none, and why: not a number, or a price would fall below nought.
    pub fn mistake(&self) -> Option<(&str, &'static str)> {
        self.0.iter().find_map(|(name, shock)| match () {
            () if !shock.is_finite() => Some((name.as_str(), "is not a finite number")),
            () if *shock < -1.0 && name != VOL => {
                Some((name.as_str(), "takes prices below nought: at least -1"))
            }
            () => None,
        })
    }
}

const VOL: &str = "vol";

/// Options held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptionPosition {
    /// Units of the underlying: contracts times their size, negative when short.
    pub units: f64,
    /// The option as it is now.
    pub option: European,
}

impl OptionPosition {
    /// Its greeks for all units, and the exposure to the underlying's return that follows from delta and gamma.
    ///
    /// # Errors
    /// As [`greeks`].
    pub fn exposure(&self) -> Result<(Exposure, Greeks), OptionError> {
        let one = greeks(&self.option)?;
        let all = Greeks {
            delta: one.delta * self.units,
            gamma: one.gamma * self.units,
            vega: one.vega * self.units,
            theta: one.theta * self.units,
            rho: one.rho * self.units,
        };
        let spot = self.option.spot;
        Ok((Exposure { linear: all.delta * spot, quadratic: 0.5 * all.gamma * spot * spot }, all))
    }

    /// Profit when the underlying's price moves by the part `shock` and volatility by `vol` at once: valued anew. Prices stop just above
    /// nought, volatility at nought.
    ///
    /// # Errors
    /// As [`price`].
    pub fn shocked(&self, shock: f64, vol: f64) -> Result<f64, OptionError> {
        let spot = (self.option.spot * (1.0 + shock)).max(self.option.spot * 1e-12);
        let after = European { spot, vol: (self.option.vol + vol).max(0.0), ..self.option };
        Ok(self.units * (price(&after)? - price(&self.option)?))
    }
}

/// Profit by an expansion: `delta dS + gamma dS^2 / 2 + vega dvol`, where `dS` is the move of the price itself.
pub fn delta_gamma_vega(greeks: &Greeks, spot_move: f64, vol_move: f64) -> f64 {
    greeks.delta * spot_move + 0.5 * greeks.gamma * spot_move * spot_move + greeks.vega * vol_move
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::OptionKind;

    fn shocks(json: serde_json::Value) -> Shocks {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_most_particular_shock_counts() {
        let crash = shocks(serde_json::json!({"SPY": -0.2, "sector:banks": -0.4, "*": -0.1, "vol": 0.3}));
        assert_eq!(crash.of("SPY", Some("banks")), -0.2);
        assert_eq!(crash.of("BAC", Some("banks")), -0.4);
        assert_eq!(crash.of("IBM", Some("tech")), -0.1);
        // A symbol of that name has no shock of its own.
        assert_eq!((crash.of("vol", None), crash.vol()), (-0.1, 0.3));
        assert_eq!(shocks(serde_json::json!({"SPY": -0.2})).of("IBM", None), 0.0);
        assert_eq!(crash.mistake(), None);
        assert_eq!(shocks(serde_json::json!({"SPY": -1.2})).mistake().unwrap().0, "SPY");
    }

    #[test]
    fn a_small_shock_is_told_by_the_greeks_and_a_large_one_is_not() {
        let option = European {
            kind: OptionKind::Put,
            spot: 100.0,
            strike: 95.0,
            rate: 0.02,
            dividend: 0.01,
            vol: 0.25,
            years: 0.5,
        };
        let position = OptionPosition { units: -300.0, option };
        let (exposure, all) = position.exposure().unwrap();
        for (shock, vol) in [(0.001, 0.0), (-0.002, 0.0005), (0.0, -0.0005)] {
            let anew = position.shocked(shock, vol).unwrap();
            let told = delta_gamma_vega(&all, 100.0 * shock, vol);
            assert!((anew - told).abs() < 5e-3 * anew.abs().max(0.1), "{anew} {told}");
            assert!((exposure.profit(shock) - delta_gamma_vega(&all, 100.0 * shock, 0.0)).abs() < 1e-9);
        }
        // The price goes to nought: the put is worth its discounted strike.
        let gone = position.shocked(-1.0, 0.3).unwrap();
        let worth = 95.0 * (-0.01f64).exp();
        assert!((gone + 300.0 * (worth - price(&option).unwrap())).abs() < 1e-6, "{gone}");
    }
}
