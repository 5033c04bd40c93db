//! How far sources have come by rows of their own: a source that has never had a row goes with these, once it is let go as idle.
//!
//! One that only follows leads nobody: two silent sources that followed each other would never move again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::operator::END;

/// A source instance that has had rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Its watermark; [`END`] once it has ended.
    pub watermark: i64,
    /// Its newest row.
    pub newest: i64,
}

/// The instances in this process, by node and worker.
#[derive(Debug)]
pub struct Leads {
    workers: usize,
    instances: Vec<(AtomicI64, AtomicI64)>,
}

impl Leads {
    /// Of `nodes` nodes on `workers` workers.
    pub fn new(nodes: usize, workers: usize) -> Self {
        let none = || (AtomicI64::new(i64::MIN), AtomicI64::new(i64::MIN));
        Self { workers, instances: (0..nodes * workers).map(|_| none()).collect() }
    }

    /// How far an instance has come.
    pub fn set(&self, node: usize, worker: usize, lead: Lead) {
        if let Some((watermark, newest)) = self.instances.get(node * self.workers + worker % self.workers) {
            watermark.store(lead.watermark, Relaxed);
            newest.store(lead.newest, Relaxed);
        }
    }

    /// How far one may go that has nothing of its own, with these and those of other processes: as far as the slowest that still
    /// runs; where all have ended, past their last row.
    pub fn follow(&self, elsewhere: &BTreeMap<(usize, usize), Lead>) -> Option<i64> {
        let here = self.instances.iter().map(|(watermark, newest)| Lead {
            watermark: watermark.load(Relaxed),
            newest: newest.load(Relaxed),
        });
        let (mut running, mut ended) = (None::<i64>, None::<i64>);
        for Lead { watermark, newest } in here.chain(elsewhere.values().copied()) {
            if newest == i64::MIN || watermark == i64::MIN {
                continue;
            }
            if watermark == END {
                ended = ended.max(Some(newest.saturating_add(1)));
            } else {
                running = Some(running.map_or(watermark, |least| least.min(watermark)));
            }
        }
        running.or(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_without_rows_goes_with_the_slowest_that_runs_and_past_those_that_have_ended() {
        let leads = Leads::new(2, 2);
        assert_eq!(leads.follow(&BTreeMap::new()), None);
        leads.set(0, 0, Lead { watermark: 50, newest: 60 });
        let elsewhere = BTreeMap::from([((1, 5), Lead { watermark: 40, newest: 40 })]);
        assert_eq!((leads.follow(&BTreeMap::new()), leads.follow(&elsewhere)), (Some(50), Some(40)));
        leads.set(0, 0, Lead { watermark: END, newest: 60 });
        assert_eq!((leads.follow(&BTreeMap::new()), leads.follow(&elsewhere)), (Some(61), Some(40)));
        // The workers of a second process of two: 2 and 3.
        leads.set(1, 3, Lead { watermark: 10, newest: 10 });
        assert_eq!(leads.follow(&elsewhere), Some(10));
    }
}
