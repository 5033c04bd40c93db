//! Which column of a file becomes which column of the archive.
//!
//! `price=Price,ts=Date:%Y-%m-%d` maps by name, `price=#3` by place (from 1) where a file has no header. What is
//! not mapped is looked for under its own name, letters of either case; `ts` and `start` also under the usual
//! names of times. With `every`, the file's times are the starts of bars: `ts` is a bar's end.

use arrow::datatypes::{DataType, SchemaRef};
use tidemill_engine::row;
use tidemill_engine::schema::SchemaSpec;

use super::text::{TimeFormat, Unit};

/// Names of times that are tried where none is mapped.
const TIME_NAMES: [&str; 6] = ["ts", "timestamp", "time", "datetime", "date", "open_time"];

/// What a user says of a file's columns.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The columns wanted.
    pub schema: Option<SchemaSpec>,
    /// Pairs of `--map`.
    pub map: Vec<Pair>,
    /// The value of `symbol` where files have no such column.
    pub symbol: Option<String>,
    /// The unit of times that are numbers.
    pub unit: Unit,
    /// The length of bars whose times are starts, nanoseconds.
    pub every_ns: Option<i64>,
    /// A column that counts by one per symbol in a whole history.
    pub ids: Option<String>,
}

/// `column=Source:format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The archive's column.
    pub column: String,
    /// The file's.
    pub from: From,
    /// How its times are written.
    pub format: Option<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A column by its name.
    Name(String),
    /// The first of these names that is there.
    AnyOf(Vec<String>),
    /// A column by its place, from 0.
    Place(usize),
    /// The same value in every row.
    Constant(String),
}

/// Reads `price=Price,ts=Date:%Y-%m-%d`.
pub fn pairs(text: &str) -> Result<Vec<Pair>, String> {
    let pair = |part: &str| {
        let (column, rest) = part
            .split_once('=')
            .filter(|(c, r)| !c.trim().is_empty() && !r.trim().is_empty())
            .ok_or_else(|| format!("`{part}` is no mapping: write column=Source, or ts=Source:%Y-%m-%d"))?;
        let (source, format) = rest.split_once(':').map_or((rest, None), |(s, f)| (s, Some(f.to_owned())));
        let from = match source.trim().strip_prefix('#').map(str::parse::<usize>) {
            Some(Ok(n)) if n > 0 => From::Place(n - 1),
            Some(_) => return Err(format!("`{source}` is no place: write #1 for the first column")),
            None => From::Name(source.trim().to_owned()),
        };
        Ok(Pair { column: column.trim().to_owned(), from, format })
    };
    text.split(',').filter(|p| !p.trim().is_empty()).map(pair).collect()
}

/// Reads `trade`, or `ts: timestamp, price: f64?`.
pub fn schema(text: &str) -> Result<SchemaSpec, String> {
    if !text.contains(':') {
        return Ok(SchemaSpec::Named(text.trim().to_owned()));
    }
    let mut columns = serde_json::Map::new();
    for part in text.trim().trim_start_matches('{').trim_end_matches('}').split(',') {
        let (name, kind) =
            part.split_once(':').ok_or_else(|| format!("`{part}` is no column: write name: type"))?;
        columns.insert(name.trim().to_owned(), serde_json::Value::String(kind.trim().to_owned()));
    }
    Ok(SchemaSpec::Columns(columns))
}

/// Where each column of a schema comes from.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// The archive's columns.
    pub schema: SchemaRef,
    /// For each of them.
    pub columns: Vec<Column>,
}

/// Where one column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The file's column.
    pub from: From,
    /// How its times are written.
    pub time: TimeFormat,
    /// Added to its times, nanoseconds.
    pub shift_ns: i64,
}

impl Mapping {
    /// The mapping into `schema`; the error says which pair is wrong.
    pub fn new(schema: SchemaRef, options: &Options) -> Result<Self, String> {
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        if let Some(pair) = options.map.iter().find(|p| !names.contains(&p.column.as_str())) {
            return Err(format!(
                "--map: the schema has no column `{}`; it has {}",
                pair.column,
                names.join(", ")
            ));
        }
        match schema.field_with_name(row::TS) {
            Ok(f) if *f.data_type() == row::ts_type() && !f.is_nullable() => {}
            _ => return Err("the schema needs a column `ts` of type timestamp, never null".into()),
        }
        let pair = |name: &str| options.map.iter().find(|p| p.column == name);
        let columns = names.iter().map(|name| {
            // The start and the end of a bar come from the same column.
            let other = match (*name, options.every_ns) {
                ("ts", Some(_)) => pair("start"),
                ("start", Some(_)) => pair("ts"),
                _ => None,
            };
            let pair = pair(name).or(other);
            let from = match pair {
                Some(pair) => pair.from.clone(),
                None if *name == "symbol" && options.symbol.is_some() => {
                    From::Constant(options.symbol.clone().unwrap_or_default())
                }
                None if *name == "ts" || *name == "start" && options.every_ns.is_some() => {
                    let mut names: Vec<String> = TIME_NAMES.iter().map(|n| (*n).to_owned()).collect();
                    if options.every_ns.is_some() {
                        names.insert(0, "start".into());
                    }
                    From::AnyOf(names)
                }
                None => From::Name((*name).to_owned()),
            };
            let time = TimeFormat { format: pair.and_then(|p| p.format.clone()), unit: options.unit };
            let shift_ns = if *name == "ts" { options.every_ns.unwrap_or(0) } else { 0 };
            Column { from, time, shift_ns }
        });
        let columns = columns.collect();
        Ok(Self { schema, columns })
    }

    /// The place of each column among a file's own; none for constants and for nullable columns that the file
    /// lacks. The error names what it lacks and what it has.
    pub fn places(&self, there: &[String], file: &str) -> Result<Vec<Option<usize>>, String> {
        let find = |name: &str| {
            let exact = there.iter().position(|t| t == name);
            exact.or_else(|| there.iter().position(|t| t.eq_ignore_ascii_case(name)))
        };
        let mut lacks = Vec::new();
        let mut places = Vec::with_capacity(self.columns.len());
        for (column, field) in self.columns.iter().zip(self.schema.fields()) {
            let (place, wanted) = match &column.from {
                From::Constant(_) => (None, None),
                From::Name(name) => (find(name), Some(name.clone())),
                From::AnyOf(names) => (names.iter().find_map(|n| find(n)), Some(names[0].clone())),
                From::Place(i) => (Some(*i).filter(|i| *i < there.len()), Some(format!("column {}", i + 1))),
            };
            if let (None, Some(wanted)) = (place, wanted)
                && !field.is_nullable()
            {
                lacks.push(match *field.name() == wanted {
                    true => wanted,
                    false => format!("{wanted} (for {})", field.name()),
                });
            }
            places.push(place);
        }
        if lacks.is_empty() {
            return Ok(places);
        }
        Err(format!(
            "`{file}` lacks {}; it has {}: map them with --map column=Source",
            lacks.join(", "),
            there.join(", ")
        ))
    }

    /// Whether a column holds times.
    pub fn is_time(&self, i: usize) -> bool {
        matches!(self.schema.field(i).data_type(), DataType::Timestamp(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_map_name_and_usual_names_of_time() {
        let options = Options {
            map: pairs("price=Last Price, ts=Date:%d/%m/%Y %H:%M").unwrap(),
            symbol: Some("ES".into()),
            ..Options::default()
        };
        let schema = schema("trade").unwrap().resolve("schema").unwrap();
        let mapping = Mapping::new(schema.clone(), &options).unwrap();
        let there = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let places = mapping.places(&there(&["Size", "Date", "Last Price"]), "f.csv").unwrap();
        assert_eq!(places, [Some(1), None, Some(2), Some(0)]);
        assert_eq!(mapping.columns[0].time.format.as_deref(), Some("%d/%m/%Y %H:%M"));
        assert_eq!(
            mapping.places(&there(&["a", "Date"]), "f.csv").unwrap_err(),
            "`f.csv` lacks Last Price (for price), size; it has a, Date: map them with --map column=Source"
        );
        let plain = Mapping::new(schema, &Options::default()).unwrap();
        let places = plain.places(&there(&["symbol", "Timestamp", "price", "size"]), "f").unwrap();
        assert_eq!(places, [Some(1), Some(0), Some(2), Some(3)]);
    }

    #[test]
    fn with_every_the_times_of_a_file_are_starts() {
        let options = Options { every_ns: Some(60), symbol: Some("X".into()), ..Options::default() };
        let bar = schema("bar").unwrap().resolve("schema").unwrap();
        let mapping = Mapping::new(bar, &options).unwrap();
        let there: Vec<String> =
            ["timestamp", "open", "high", "low", "close", "volume"].map(str::to_owned).into();
        assert_eq!(mapping.places(&there, "f").unwrap()[..3], [Some(0), None, Some(0)]);
        assert_eq!((mapping.columns[0].shift_ns, mapping.columns[2].shift_ns), (60, 0));
    }

    #[test]
    fn what_is_no_mapping_is_said() {
        assert!(pairs("price").unwrap_err().contains("write column=Source"));
        assert!(pairs("price=#0").unwrap_err().contains("#1"));
        let trade = schema("trade").unwrap().resolve("schema").unwrap();
        let options = Options { map: pairs("prise=Price").unwrap(), ..Options::default() };
        assert!(Mapping::new(trade, &options).unwrap_err().contains("no column `prise`; it has ts, symbol"));
        assert!(schema("a: f64, b").is_err());
    }
}
