//! The price at which a venue would close a position that needs margin.
//!
//! Let E be equity and M the maintenance margin of all positions, both now; the position has q units (signed) of multiplier m at mark P0 in
//! a currency worth r, and maintenance margin w. With everything else as it is, at price P
//!
//! - equity is E + q m r (P - P0): a position's profit changes so whether it was paid for or not;
//! - maintenance is M + w |q| m r (P - P0).
//!
//! They are equal where (E - M) + (q - w |q|) m r (P - P0) = 0, so **P = P0 - (E - M) / ((q - w |q|) m r)**. For a long position the
//! denominator is q (1 - w) m r > 0: the price lies below the mark while E > M. For a short one it is -|q| (1 + w) m r: above.

use super::Ledger;
use crate::market::InstrumentId;

impl Ledger {
    /// The mark at which equity is the maintenance margin, other marks and rates as they are. `None` where nothing is held, the position
    /// needs no margin, a price is not known, or no price above zero does it (the rest of the account bears the whole loss).
    pub fn liquidation_price(&self, instrument: InstrumentId) -> Option<f64> {
        let i = instrument as usize;
        let known = self.known.get(i).filter(|known| known.margined && known.size != 0.0)?;
        let free = self.equity() - self.margin_maintenance();
        let rate = self.ways[known.quote].near(&self.state.marks);
        let slope = (known.size - known.maintenance_near * known.size.abs()) * rate;
        let price = self.state.marks[i] - free / slope;
        // Of a long position whose margin is its whole value or more, a rise brings liquidation no farther away.
        let turned = slope * known.size <= 0.0;
        (price > 0.0 && price.is_finite() && !turned).then_some(price)
    }

    /// How far the mark is from [`Ledger::liquidation_price`], as a part of the mark: 0.1 is 10 % to go; zero or below where it is passed.
    pub fn liquidation_distance(&self, instrument: InstrumentId) -> Option<f64> {
        let price = self.liquidation_price(instrument)?;
        let mark = self.price(instrument);
        let long = self.known.get(instrument as usize)?.size > 0.0;
        Some(if long { mark - price } else { price - mark } / mark)
    }
}
