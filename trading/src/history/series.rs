//! One instrument's returns: the window is always one slice, oldest first.

use serde::{Deserialize, Serialize};

use super::Returns;

/// Returns are appended; once two windows are full, the newer one moves to the front. So a return costs O(1), and no copy is needed to read them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Series {
    /// The price at the last point that was closed; NaN: none.
    previous: f64,
    /// Whether a point was closed: the first has no return.
    begun: bool,
    returns: Vec<f64>,
}

impl Series {
    /// One that begins after `rows` points were closed for others.
    pub(super) fn unknown(rows: usize, window: usize) -> Self {
        let returns = vec![f64::NAN; rows.saturating_sub(1).min(window)];
        Self { previous: f64::NAN, begun: rows > 0, returns }
    }

    pub(super) fn close(&mut self, last: f64, kind: Returns, window: usize) {
        if self.begun {
            if self.returns.len() >= 2 * window {
                self.returns.copy_within(window + 1.., 0);
                self.returns.truncate(window - 1);
            }
            let ratio = last / self.previous;
            self.returns.push(match kind {
                Returns::Simple => ratio - 1.0,
                Returns::Log => ratio.ln(),
            });
        }
        self.previous = last;
        self.begun = true;
    }

    pub(super) fn split(&mut self, ratio: f64) {
        self.previous /= ratio;
    }

    pub(super) fn window(&self, window: usize) -> &[f64] {
        &self.returns[self.returns.len().saturating_sub(window)..]
    }
}
