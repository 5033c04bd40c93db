//! The list of indicators: what each reads, what it gives, and how it is built.
use schemars::JsonSchema;

use super::indicator::{Bank, BankOf, Indicator};
use super::params::{self, ParamError, Params};
use super::{
    adx, aroon, atr, bollinger, bop, cci, cmf, dema, donchian, ema, force, ichimoku, kama, keltner, linreg,
    macd, mfi, obv, psar, roc, rsi, sma, stddev, stoch, supertrend, t3, trima, trix, tsi, ultimate, vortex,
    vwap, williams_r, wma, zlema,
};

/// What an input column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The one series an indicator is of: the close of a bar unless the user names another column.
    Price,
    Open,
    High,
    Low,
    Close,
    Volume,
}

impl Role {
    /// The column read unless the user names another.
    pub const fn column(self) -> &'static str {
        match self {
            Role::Price | Role::Close => "close",
            Role::Open => "open",
            Role::High => "high",
            Role::Low => "low",
            Role::Volume => "volume",
        }
    }
}

/// One indicator, as data.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub inputs: &'static [Role],
    /// Names of the output columns: the indicator's name, or that and a suffix.
    pub outputs: &'static [&'static str],
    schema: fn() -> serde_json::Value,
    build: fn(&serde_json::Value) -> Result<Box<dyn Bank>, ParamError>,
}

impl Spec {
    pub(super) const fn of<P, const I: usize, const O: usize>(
        name: &'static str,
        inputs: &'static [Role; I],
        outputs: &'static [&'static str; O],
    ) -> Spec
    where
        P: Params,
        P::Indicator: Indicator<I, O>,
    {
        Spec { name, inputs, outputs, schema: schema::<P>, build: build::<P, I, O> }
    }

    /// The names of the columns read unless the user names others.
    pub fn default_inputs(&self) -> Vec<&'static str> {
        self.inputs.iter().map(|role| role.column()).collect()
    }

    /// The JSON Schema of the params.
    pub fn params_schema(&self) -> serde_json::Value {
        (self.schema)()
    }

    /// What it computes, from the params' doc comment.
    pub fn doc(&self) -> String {
        let schema = self.params_schema();
        let lines = schema["description"].as_str().unwrap_or_default().lines();
        lines.collect::<Vec<_>>().join(" ")
    }

    /// An empty bank with these params (null for the defaults).
    pub fn build(&self, params: &serde_json::Value) -> Result<Box<dyn Bank>, ParamError> {
        (self.build)(params)
    }
}

fn schema<P: JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(P).to_value()
}

fn build<P, const I: usize, const O: usize>(json: &serde_json::Value) -> Result<Box<dyn Bank>, ParamError>
where
    P: Params,
    P::Indicator: Indicator<I, O>,
{
    let indicator = params::read::<P>(json)?.build()?;
    Ok(Box::new(BankOf::new(indicator)))
}

/// Every indicator, by name.
pub fn all() -> &'static [Spec] {
    ALL
}

/// The indicator of that name.
pub fn find(name: &str) -> Option<&'static Spec> {
    ALL.iter().find(|spec| spec.name == name)
}

static ALL: &[Spec] = &[
    cmf::AD,
    cmf::ADOSC,
    adx::ADX,
    macd::APO,
    aroon::AROON,
    atr::ATR,
    bollinger::BANDWIDTH,
    bollinger::BOLLINGER,
    bop::BOP,
    cci::CCI,
    cmf::CMF,
    rsi::CMO,
    dema::DEMA,
    donchian::DONCHIAN,
    ema::EMA,
    force::FORCE,
    wma::HMA,
    ichimoku::ICHIMOKU,
    kama::KAMA,
    keltner::KELTNER,
    linreg::LINREG,
    macd::MACD,
    donchian::MAX,
    mfi::MFI,
    donchian::MIN,
    roc::MOM,
    atr::NATR,
    obv::OBV,
    bollinger::PERCENT_B,
    macd::PPO,
    psar::PSAR,
    obv::PVT,
    ema::RMA,
    roc::ROC,
    rsi::RSI,
    sma::SMA,
    stddev::STDDEV,
    stoch::STOCH,
    stoch::STOCH_RSI,
    supertrend::SUPERTREND,
    t3::T3,
    dema::TEMA,
    trima::TRIMA,
    trix::TRIX,
    atr::TRUE_RANGE,
    tsi::TSI,
    ultimate::ULTIMATE,
    stddev::VOLATILITY,
    vortex::VORTEX,
    vwap::VWAP,
    vwap::VWMA,
    williams_r::WILLIAMS_R,
    wma::WMA,
    zlema::ZLEMA,
    stddev::ZSCORE,
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_outputs_are_unique_and_sorted() {
        let names: Vec<_> = all().iter().map(|spec| spec.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let outputs: Vec<_> = all().iter().flat_map(|spec| spec.outputs).collect();
        assert_eq!(outputs.iter().collect::<HashSet<_>>().len(), outputs.len());
        assert!(names.len() >= 25);
    }

    #[test]
    fn outputs_are_named_after_the_indicator() {
        for spec in all() {
            let first = spec.outputs[0];
            assert!(first.starts_with(spec.name), "{first}");
        }
    }

    #[test]
    fn every_indicator_and_every_param_is_documented() {
        for spec in all() {
            assert!(spec.doc().len() > 20, "{} has no doc", spec.name);
            let schema = spec.params_schema();
            assert_eq!(schema["additionalProperties"], false, "{}", spec.name);
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                assert!(field["description"].is_string(), "{}.{name}", spec.name);
                assert!(!field["default"].is_null() || name == "period", "{}.{name}", spec.name);
            }
        }
    }

    #[test]
    fn the_defaults_build() {
        for spec in all() {
            for params in [json!(null), json!({})] {
                let bank = spec.build(&params).expect(spec.name);
                assert_eq!(bank.inputs(), spec.inputs.len());
                assert_eq!(bank.outputs(), spec.outputs.len());
            }
        }
    }

    #[test]
    fn bad_params_are_named() {
        let error = |name: &str, params| find(name).unwrap().build(&params).err().unwrap();
        let e = error("rsi", json!({"perod": 3}));
        assert_eq!(e.path, "perod");
        assert!(e.reason.contains("unknown field"), "{e}");
        assert_eq!(error("rsi", json!({"period": 0})).to_string(), "period: must be from 1 to 100000, not 0");
        assert_eq!(error("sma", json!({"period": 100_001})).path, "period");
        assert_eq!(error("sma", json!({"period": -3})).path, "period");
        assert_eq!(error("bollinger", json!({"width": "wide"})).path, "width");
        assert_eq!(
            error("macd", json!({"fast": 26, "slow": 12})).to_string(),
            "fast: must be below slow (12), not 26"
        );
        assert_eq!(error("macd", json!([1])).reason, "params must be a mapping");
        for spec in all() {
            assert!(spec.build(&json!({"no_such_param": 1})).is_err());
            for name in spec.params_schema()["properties"].as_object().into_iter().flatten() {
                if name.0.contains("period") {
                    for bad in [json!(0), json!(4_000_000), json!("x"), json!(1.5)] {
                        let params = json!({name.0: bad});
                        let e = spec.build(&params).err();
                        assert_eq!(e.expect("refused").path, *name.0, "{} {params}", spec.name);
                    }
                }
            }
        }
    }
}
