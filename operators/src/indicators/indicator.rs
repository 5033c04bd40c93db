//! What an indicator is, and how a batch of rows reaches it.
//!
//! An [`Indicator`] is the part all keys share (periods, smoothing factors); its `State` is what
//! one key has seen. A [`Bank`] holds one state per key *slot* and takes a whole batch at a time,
//! so the dynamic call is paid once per batch and the inner loop is over plain slices.
//!
//! Nulls: a row with a value that is not finite, or beyond [`INPUT_MAX`], leaves the state as it
//! was and gives NaN. A value that is undefined (0/0) or does not fit is NaN too: outputs are
//! finite or NaN. An output is NaN until its indicator is warm.
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Larger magnitudes count as null, so that no sum of squares over the longest window overflows.
pub const INPUT_MAX: f64 = 1e75;

/// A function of one key's rows in order, with `I` inputs and `O` outputs a row.
///
/// `step` must cost O(1) amortised, allocate nothing once warm, never panic whatever the finite
/// input, and depend on nothing but the rows: a state that was encoded and decoded continues bit
/// for bit.
pub trait Indicator<const I: usize, const O: usize>: Clone + Send + 'static {
    /// What one key has seen.
    type State: Clone + Default + Send + Serialize + DeserializeOwned + 'static;

    /// Takes one row of finite values within [`INPUT_MAX`].
    fn step(&self, state: &mut Self::State, x: [f64; I]) -> [f64; O];

    /// Takes one row of any values: what callers use.
    #[inline]
    fn update(&self, state: &mut Self::State, x: [f64; I]) -> [f64; O] {
        // False for NaN as well.
        if !x.iter().all(|v| v.abs() <= INPUT_MAX) {
            return [f64::NAN; O];
        }
        self.step(state, x).map(|y| if y.is_finite() { y } else { f64::NAN })
    }
}

/// One indicator over many keys.
pub trait Bank: Send {
    /// Columns read by [`Bank::update`], in the order of the spec's roles.
    fn inputs(&self) -> usize;

    /// Columns written by [`Bank::update`].
    fn outputs(&self) -> usize;

    /// Makes room for slots `0..keys`; new slots are empty, others stay.
    fn reserve(&mut self, keys: usize);

    /// Feeds row `r`, for each in order, to the state at `slots[r]`, and appends its outputs to
    /// the columns of `out`. Panics where a slot was not reserved or a column's length is not
    /// that of `slots`: both are bugs of the caller.
    fn update(&mut self, slots: &[u32], inputs: &[&[f64]], out: &mut [Vec<f64>]);

    /// Forgets what a slot has seen: at a session's start, or to give the slot to another key.
    fn reset(&mut self, slot: u32);

    /// Appends a slot's state to a checkpoint.
    fn encode(&self, slot: u32, buf: &mut Vec<u8>);

    /// Takes a slot's state from the front of a checkpoint that [`Bank::encode`] wrote with the
    /// same params (the job's compatibility check sees to that), and moves `bytes` past it.
    fn decode(&mut self, slot: u32, bytes: &mut &[u8]) -> Result<(), String>;
}

/// A [`Bank`] of any [`Indicator`].
pub struct BankOf<T: Indicator<I, O>, const I: usize, const O: usize> {
    indicator: T,
    states: Vec<T::State>,
}

impl<T: Indicator<I, O>, const I: usize, const O: usize> BankOf<T, I, O> {
    pub fn new(indicator: T) -> Self {
        BankOf { indicator, states: Vec::new() }
    }
}

impl<T: Indicator<I, O>, const I: usize, const O: usize> Bank for BankOf<T, I, O> {
    fn inputs(&self) -> usize {
        I
    }

    fn outputs(&self) -> usize {
        O
    }

    fn reserve(&mut self, keys: usize) {
        if keys > self.states.len() {
            self.states.resize_with(keys, T::State::default);
        }
    }

    fn update(&mut self, slots: &[u32], inputs: &[&[f64]], out: &mut [Vec<f64>]) {
        let rows = slots.len();
        let inputs: &[&[f64]; I] = inputs.try_into().expect("one column per input role");
        let out: &mut [Vec<f64>; O] = out.try_into().expect("one column per output");
        let inputs = inputs.map(|column| {
            assert_eq!(column.len(), rows, "an input column is not as long as the batch");
            column
        });
        let mut out = out.each_mut().map(|column| {
            let start = column.len();
            column.resize(start + rows, f64::NAN);
            &mut column[start..]
        });
        for (row, &slot) in slots.iter().enumerate() {
            let state = &mut self.states[slot as usize];
            let y = self.indicator.update(state, inputs.map(|column| column[row]));
            for (column, y) in out.iter_mut().zip(y) {
                column[row] = y;
            }
        }
    }

    fn reset(&mut self, slot: u32) {
        self.states[slot as usize] = T::State::default();
    }

    fn encode(&self, slot: u32, buf: &mut Vec<u8>) {
        let state = &self.states[slot as usize];
        *buf = postcard::to_extend(state, std::mem::take(buf))
            .expect("states are plain numbers and lists of them, which always encode");
    }

    fn decode(&mut self, slot: u32, bytes: &mut &[u8]) -> Result<(), String> {
        let (state, rest) =
            postcard::take_from_bytes(bytes).map_err(|e| format!("indicator state can't be read: {e}"))?;
        self.states[slot as usize] = state;
        *bytes = rest;
        Ok(())
    }
}

/// `a / b`, or NaN where that is undefined or does not fit.
#[inline]
pub fn ratio(a: f64, b: f64) -> f64 {
    let q = a / b;
    if q.is_finite() { q } else { f64::NAN }
}

/// Zero in place of a vanishing number: an average that decays for ever would else end among the
/// subnormals, where each operation costs a hundred cycles.
#[inline]
pub fn flush(x: f64) -> f64 {
    if x.abs() < 1e-290 { 0.0 } else { x }
}
