//! The values of a sweep: `fast=5..20:5`, `every=1m,5m,15m`, each a variable of the graph.
//!
//! A range has both its ends, as far as steps reach; values are exact decimals, so `0.1..0.3:0.1` is three values.

use tidemill_trading::Decimal;

use super::runner::Set;

/// Points that a grid may have.
pub const POINTS_MAX: usize = 100_000;

/// One variable and the values it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The variable.
    pub name: String,
    /// Its values, as `--set` would take them.
    pub values: Vec<String>,
}

impl std::str::FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}`: {why}: write NAME=A..B, NAME=A..B:STEP or NAME=A,B,C");
        let (name, values) = text.split_once('=').ok_or_else(|| bad("no variable"))?;
        let name = name.trim().to_owned();
        if name.is_empty() {
            return Err(bad("no variable"));
        }
        let values = match values.split_once("..") {
            Some((from, rest)) => {
                let (to, step) = rest.split_once(':').map_or((rest, None), |(to, step)| (to, Some(step)));
                range(from, to, step).map_err(|why| bad(&why))?
            }
            None => values.split(',').map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect(),
        };
        if values.is_empty() {
            return Err(bad("no values"));
        }
        if let Some(twice) = values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
            return Err(bad(&format!("`{}` stands there twice", twice.1)));
        }
        Ok(Self { name, values })
    }
}

fn range(from: &str, to: &str, step: Option<&str>) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        Decimal::from_str_exact(text.trim()).map_err(|_| format!("`{}` is not a number", text.trim()))
    };
    let (from, to) = (number(from)?, number(to)?);
    let step = match step {
        Some(step) => number(step)?,
        None if from.fract().is_zero() && to.fract().is_zero() => Decimal::ONE,
        None => return Err("a range of fractions needs a step".into()),
    };
    if step <= Decimal::ZERO || from > to {
        return Err("a range goes up, by a step above zero".into());
    }
    let mut values = Vec::new();
    let mut value = from;
    while value <= to {
        values.push(value.normalize().to_string());
        if values.len() > POINTS_MAX {
            return Err(format!("a range has at most {POINTS_MAX} values"));
        }
        value = value.checked_add(step).ok_or("a range this large cannot be counted")?;
    }
    Ok(values)
}

/// Every combination of the axes' values, the last axis first to change.
pub fn points(axes: &[Axis]) -> Result<Vec<Vec<Set>>, String> {
    for (i, axis) in axes.iter().enumerate() {
        if axes[..i].iter().any(|other| other.name == axis.name) {
            return Err(format!("--sweep {}: the variable is swept twice", axis.name));
        }
    }
    let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.values.len()));
    if count.is_none_or(|n| n > POINTS_MAX) {
        return Err(format!("the grid has more than {POINTS_MAX} points: take larger steps"));
    }
    let mut points = vec![Vec::new()];
    for axis in axes {
        points = points
            .into_iter()
            .flat_map(|point: Vec<Set>| {
                axis.values.iter().map(move |value| {
                    let mut point = point.clone();
                    point.push((axis.name.clone(), value.clone()));
                    point
                })
            })
            .collect();
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<String> {
        text.parse::<Axis>().unwrap().values
    }

    #[test]
    fn ranges_and_lists() {
        assert_eq!(values("n=1..4"), ["1", "2", "3", "4"]);
        assert_eq!(values("n=5..20:5"), ["5", "10", "15", "20"]);
        assert_eq!(values("x=0.1..0.35:0.1"), ["0.1", "0.2", "0.3"]);
        assert_eq!(values("x=-1..1"), ["-1", "0", "1"]);
        assert_eq!(values("every=1m, 5m"), ["1m", "5m"]);
        for bad in ["n", "=1..2", "n=", "n=2..1", "n=1..2:0", "x=0.1..0.2", "n=4,4", "n=a..b", "n=0..1000000"]
        {
            assert!(bad.parse::<Axis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_grid_is_every_combination() {
        let axes = ["a=1..2".parse().unwrap(), "b=x,y".parse().unwrap()];
        let points: Vec<String> =
            points(&axes).unwrap().iter().map(|p| format!("{}{}", p[0].1, p[1].1)).collect();
        assert_eq!(points, ["1x", "1y", "2x", "2y"]);
        assert!(super::points(&[axes[0].clone(), axes[0].clone()]).is_err());
    }
}
