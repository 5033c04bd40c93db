//! Names in the rules that nothing has: a limit of theirs would never hold anything back.

use super::Wrong;
use super::params::GateParams;
use crate::instrument::Instrument;

/// Symbols that no instrument has. Only where no others can come.
pub(super) fn unknown_symbols(params: &GateParams, instruments: &[Instrument]) -> Wrong {
    let known: Vec<&str> = instruments.iter().map(|instrument| instrument.symbol.as_str()).collect();
    let mut wrong = Wrong::new();
    for (path, limits) in [("order", &params.order), ("position", &params.position)] {
        for symbol in limits.iter().flat_map(|limits| limits.symbols.keys()) {
            if !known.contains(&symbol.as_str()) {
                let reason = format!("no instrument has this symbol{}", hint(symbol, &known));
                wrong.push((format!("{path}.symbols.{symbol}"), reason));
            }
        }
    }
    wrong
}

/// Sectors and venues that no instrument has. `instruments` are all that there are or can be: others are like one of them.
pub(super) fn unknown_groups<'a>(
    params: &GateParams,
    instruments: impl Iterator<Item = &'a Instrument> + Clone,
) -> Wrong {
    let mut wrong = Wrong::new();
    for path in ["sector", "venue"] {
        let of = |instrument: &'a Instrument| {
            if path == "sector" { instrument.sector.as_deref() } else { instrument.venue.as_deref() }
        };
        let known: Vec<&str> = instruments.clone().filter_map(of).collect();
        let groups = if path == "sector" { &params.sector } else { &params.venue };
        for name in groups.keys() {
            if known.is_empty() {
                let reason = format!(
                    "no instrument has a `{path}`: write it in `instruments` or `default_instrument`"
                );
                wrong.push((format!("{path}.{name}"), reason));
            } else if name != "*" && !known.contains(&name.as_str()) {
                let reason = format!("no instrument has this `{path}`{}", hint(name, &known));
                wrong.push((format!("{path}.{name}"), reason));
            }
        }
    }
    wrong
}

/// The known name that is nearest, where one is near.
fn hint(name: &str, known: &[&str]) -> String {
    let distance = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    known
        .iter()
        .map(|other| (distance(other), other))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 1 + name.len().saturating_sub(1) / 4)
        .map_or_else(String::new, |(_, other)| format!(": did you mean `{other}`?"))
}
