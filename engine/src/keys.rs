//! Keys: which rows belong together, and which worker owns them.
//!
//! A key is the values of the `by` columns, encoded to bytes that never depend on batches,
//! dictionaries or versions of Arrow: they are hashed to one of [`GROUPS`] key groups and are
//! stored in checkpoints. Work is done once per distinct dictionary value of a batch where the key
//! columns are dictionary-encoded, so a row costs one table look-up.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use hashbrown::HashTable;

use crate::operator::OperatorError;

/// Key groups: the unit of state that moves between workers.
pub const GROUPS: u16 = 1024;

/// Whether columns of this type can be keys.
pub fn is_key_type(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(k, v) => **k == DataType::Int32 && **v == DataType::Utf8,
        DataType::Utf8
        | DataType::Boolean
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Nanosecond, _) => true,
        t => t.is_integer(),
    }
}

/// The worker that owns `group` among `peers`.
pub fn owner(group: u16, peers: usize) -> usize {
    group as usize * peers / GROUPS as usize
}

/// The group of an encoded key.
pub fn group_of(key: &[u8]) -> u16 {
    (hash(key) >> 54) as u16
}

fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Reads encoded keys out of batches.
#[derive(Clone, Debug)]
pub struct KeyReader {
    columns: Vec<usize>,
}

/// Dictionary codes are used while the product of dictionary sizes stays under this.
const CODES_MAX: usize = 1 << 16;

impl KeyReader {
    /// Reads the columns at these indices.
    pub fn new(columns: Vec<usize>) -> Self {
        Self { columns }
    }

    /// The columns it reads.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Rows that have a null in a key column; `None` where no row has.
    pub fn null_rows(&self, batch: &RecordBatch) -> Option<BooleanArray> {
        let nulls = self.columns.iter().filter(|c| batch.column(**c).is_nullable());
        let mut found = None;
        for c in nulls {
            let is_null = arrow::compute::is_null(batch.column(*c)).ok()?;
            found = match found {
                None => Some(is_null),
                Some(before) => arrow::compute::or(&before, &is_null).ok(),
            };
        }
        found.filter(|mask| mask.true_count() > 0)
    }

    /// Calls `visit(encoded key)` once per distinct key (at least) and writes what it returns for
    /// each row's key into `out`.
    pub fn map<T: Copy>(&self, batch: &RecordBatch, out: &mut Vec<T>, mut visit: impl FnMut(&[u8]) -> T) {
        out.clear();
        let rows = batch.num_rows();
        out.reserve(rows);
        let mut buffer = Vec::with_capacity(32);
        if self.columns.is_empty() {
            if rows > 0 {
                out.resize(rows, visit(&[]));
            }
            return;
        }
        let columns: Vec<Column> = self.columns.iter().map(|c| Column::of(batch.column(*c))).collect();
        match columns.as_slice() {
            [Column::Dict(a, _)] if a.values().len() <= CODES_MAX.min(4 * rows + 64) => {
                let mut seen: Vec<Option<T>> = vec![None; a.values().len()];
                for (row, code) in a.keys().values().iter().enumerate() {
                    let entry = &mut seen[*code as usize];
                    let value = *entry.get_or_insert_with(|| {
                        encode_row(&columns, row, &mut buffer);
                        visit(&buffer)
                    });
                    out.push(value);
                }
            }
            [Column::Dict(a, _), Column::Dict(b, _)]
                if a.values().len() * b.values().len() <= CODES_MAX.min(4 * rows + 64) =>
            {
                let width = b.values().len();
                let mut seen: Vec<Option<T>> = vec![None; a.values().len() * width];
                let codes = a.keys().values().iter().zip(b.keys().values().iter());
                for (row, (i, j)) in codes.enumerate() {
                    let entry = &mut seen[*i as usize * width + *j as usize];
                    let value = *entry.get_or_insert_with(|| {
                        encode_row(&columns, row, &mut buffer);
                        visit(&buffer)
                    });
                    out.push(value);
                }
            }
            _ => {
                for row in 0..rows {
                    encode_row(&columns, row, &mut buffer);
                    out.push(visit(&buffer));
                }
            }
        }
    }

    /// The key group of every row.
    pub fn groups(&self, batch: &RecordBatch, out: &mut Vec<u16>) {
        self.map(batch, out, group_of);
    }
}

/// A key column, downcast once per batch.
enum Column<'a> {
    Dict(&'a DictionaryArray<Int32Type>, &'a StringArray),
    Text(StringArray),
    Bool(BooleanArray),
    Int(Int64Array),
    Uint(UInt64Array),
    /// A type the planner does not let through.
    Other,
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Self {
        let cast = |to: &DataType| arrow::compute::cast(array, to).ok();
        match array.data_type() {
            DataType::Dictionary(..) => match array.as_dictionary_opt::<Int32Type>() {
                Some(dict) if dict.null_count() == 0 => match dict.values().as_string_opt::<i32>() {
                    Some(values) => Column::Dict(dict, values),
                    None => Column::Other,
                },
                _ => cast(&DataType::Utf8).map_or(Column::Other, |a| Column::Text(a.as_string().clone())),
            },
            DataType::Utf8 => Column::Text(array.as_string().clone()),
            DataType::Boolean => Column::Bool(array.as_boolean().clone()),
            t if t.is_unsigned_integer() => {
                cast(&DataType::UInt64).map_or(Column::Other, |a| Column::Uint(a.as_primitive().clone()))
            }
            _ => cast(&DataType::Int64).map_or(Column::Other, |a| Column::Int(a.as_primitive().clone())),
        }
    }
}

const NULL: u8 = 0;
const TEXT: u8 = 1;
const INT: u8 = 2;
const UINT: u8 = 3;
const BOOL: u8 = 4;

fn encode_row(columns: &[Column], row: usize, out: &mut Vec<u8>) {
    out.clear();
    let text = |s: &str, out: &mut Vec<u8>| {
        out.push(TEXT);
        out.extend_from_slice(&(s.len() as u32).to_le_bytes());
        out.extend_from_slice(s.as_bytes());
    };
    for column in columns {
        match column {
            Column::Dict(dict, values) => text(values.value(dict.keys().value(row) as usize), out),
            Column::Text(values) if values.is_null(row) => out.push(NULL),
            Column::Bool(values) if values.is_null(row) => out.push(NULL),
            Column::Int(values) if values.is_null(row) => out.push(NULL),
            Column::Uint(values) if values.is_null(row) => out.push(NULL),
            Column::Text(values) => text(values.value(row), out),
            Column::Bool(values) => out.extend_from_slice(&[BOOL, u8::from(values.value(row))]),
            Column::Int(values) => {
                out.push(INT);
                out.extend_from_slice(&values.value(row).to_le_bytes());
            }
            Column::Uint(values) => {
                out.push(UINT);
                out.extend_from_slice(&values.value(row).to_le_bytes());
            }
            Column::Other => out.push(NULL),
        }
    }
}

/// The keys an operator instance has met, each with a slot: 0, 1, 2, … in order of appearance.
#[derive(Debug)]
pub struct Keys {
    reader: KeyReader,
    types: Vec<DataType>,
    table: HashTable<u32>,
    /// Keys, each behind its length.
    bytes: Vec<u8>,
    /// Where a slot's key is in `bytes`.
    starts: Vec<usize>,
    groups: Vec<u16>,
    /// Not kept where slots are reused.
    by_group: Vec<Vec<u32>>,
    /// By slot, once a key has been forgotten: 0 for a live one, else one more than the epoch of its end.
    ended: Vec<u32>,
    /// Slots whose key has been forgotten.
    forgotten: usize,
    reuse: Option<Reuse>,
    /// By group: the stamp of the last change of one of its keys.
    changed: Vec<u32>,
    stamp: u32,
}

/// Slots that go to other keys.
#[derive(Debug, Default)]
struct Reuse {
    free: Vec<u32>,
    /// Slots given since they were last taken; whether another key had it before.
    fresh: Vec<(u32, bool)>,
    /// Bytes of keys that are no more.
    garbage: usize,
}

/// Where the key of a free slot is.
const FREE: usize = usize::MAX;
/// Garbage that is kept whatever its share.
const GARBAGE_MIN: usize = 64 << 10;

impl Keys {
    /// Keys made of the columns at `columns` of `schema`.
    pub fn new(columns: Vec<usize>, schema: &Schema) -> Self {
        let types = columns.iter().map(|c| schema.field(*c).data_type().clone()).collect();
        Self {
            reader: KeyReader::new(columns),
            types,
            table: HashTable::new(),
            bytes: Vec::new(),
            starts: Vec::new(),
            groups: Vec::new(),
            by_group: vec![Vec::new(); GROUPS as usize],
            ended: Vec::new(),
            forgotten: 0,
            reuse: None,
            changed: vec![0; GROUPS as usize],
            stamp: 1,
        }
    }

    /// No keys, read from the same columns.
    pub(crate) fn emptied(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            types: self.types.clone(),
            table: HashTable::new(),
            bytes: Vec::new(),
            starts: Vec::new(),
            groups: Vec::new(),
            by_group: vec![Vec::new(); GROUPS as usize],
            ended: Vec::new(),
            forgotten: 0,
            reuse: None,
            changed: vec![0; GROUPS as usize],
            stamp: 1,
        }
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// How many keys there are: slots whose key has not been forgotten.
    pub fn live(&self) -> usize {
        self.starts.len() - self.forgotten
    }

    /// Slots whose key has been forgotten.
    pub(crate) fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Whether the key of a slot was forgotten before `epoch`.
    pub(crate) fn ended_before(&self, slot: u32, epoch: u32) -> bool {
        self.ended.get(slot as usize).is_some_and(|ended| *ended > 0 && *ended <= epoch)
    }

    /// Whether a slot still stands for its key.
    pub(crate) fn is_live(&self, slot: u32) -> bool {
        self.ended.get(slot as usize).is_none_or(|ended| *ended == 0)
    }

    /// Lets the key of a live slot go, in `epoch`: the key's next row gets another slot.
    pub(crate) fn forget(&mut self, slot: u32, epoch: u32) {
        let h = hash(self.key(slot));
        self.changed[(h >> 54) as usize] = self.stamp;
        if let Ok(entry) = self.table.find_entry(h, |other| *other == slot) {
            entry.remove();
        }
        self.ended.resize(self.starts.len(), 0);
        self.ended[slot as usize] = epoch.saturating_add(1);
        self.forgotten += 1;
    }

    /// Gives the key of a live slot another slot, in `epoch`.
    pub(crate) fn renew(&mut self, slot: u32, epoch: u32) -> u32 {
        let key = self.key(slot).to_vec();
        self.forget(slot, epoch);
        self.slot(&key)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Writes every row's slot into `slots`; new keys get new slots.
    pub fn resolve(&mut self, batch: &RecordBatch, slots: &mut Vec<u32>) {
        let reader = self.reader.clone();
        reader.map(batch, slots, |key| self.slot(key));
    }

    /// Like [`resolve`](Self::resolve) with the key columns of another input.
    pub fn resolve_with(&mut self, reader: &KeyReader, batch: &RecordBatch, slots: &mut Vec<u32>) {
        reader.map(batch, slots, |key| self.slot(key));
    }

    /// The slot of an encoded key, made where it is new.
    pub fn slot(&mut self, key: &[u8]) -> u32 {
        let h = hash(key);
        self.changed[(h >> 54) as usize] = self.stamp;
        if let Some(slot) = self.table.find(h, |slot| key_bytes(&self.bytes, &self.starts, *slot) == key) {
            return *slot;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(key);
        let group = group_of(key);
        let again = self.reuse.as_mut().and_then(|reuse| reuse.free.pop());
        let slot = match again {
            Some(slot) => {
                self.starts[slot as usize] = start;
                self.groups[slot as usize] = group;
                self.ended[slot as usize] = 0;
                self.forgotten -= 1;
                slot
            }
            None => {
                self.starts.push(start);
                self.groups.push(group);
                self.starts.len() as u32 - 1
            }
        };
        match &mut self.reuse {
            Some(reuse) => reuse.fresh.push((slot, again.is_some())),
            None => self.by_group[group as usize].push(slot),
        }
        let (bytes, starts) = (&self.bytes, &self.starts);
        self.table.insert_unique(h, slot, |slot| hash(key_bytes(bytes, starts, *slot)));
        slot
    }

    /// Changes are marked with this number from now on.
    pub(crate) fn mark_with(&mut self, stamp: u32) {
        self.stamp = stamp;
    }

    /// Marks the group of a slot as changed.
    pub(crate) fn mark(&mut self, slot: u32) {
        self.changed[self.groups[slot as usize] as usize] = self.stamp;
    }

    /// Marks a group as it is in a checkpoint.
    pub(crate) fn unmark(&mut self, group: u16) {
        self.changed[group as usize] = 0;
    }

    /// With which number the last change of a group is marked; 0 where there has been none.
    pub(crate) fn changed(&self, group: u16) -> u32 {
        self.changed[group as usize]
    }

    /// Takes over the marks of other keys.
    pub(crate) fn keep_marks(&mut self, of: &Self) {
        self.changed.clone_from(&of.changed);
        self.stamp = of.stamp;
    }

    /// The slot of an encoded key, if it has one.
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        self.table.find(hash(key), |slot| key_bytes(&self.bytes, &self.starts, *slot) == key).copied()
    }

    /// From now on slots that have been [freed](Self::free) go to other keys.
    pub(crate) fn reuse_slots(&mut self) {
        self.reuse.get_or_insert_default();
    }

    /// The slots given since the last call, and whether another key had them before.
    pub(crate) fn take_fresh(&mut self) -> Vec<(u32, bool)> {
        self.reuse.as_mut().map(|reuse| std::mem::take(&mut reuse.fresh)).unwrap_or_default()
    }

    /// Frees the slot of a key that has been forgotten.
    pub(crate) fn free(&mut self, slot: u32) {
        let length = 4 + self.key(slot).len();
        self.starts[slot as usize] = FREE;
        let Some(reuse) = &mut self.reuse else { return };
        reuse.free.push(slot);
        reuse.garbage += length;
        if reuse.garbage > GARBAGE_MIN && reuse.garbage > self.bytes.len() / 4 {
            reuse.garbage = 0;
            let mut bytes = Vec::with_capacity(self.bytes.len() * 7 / 8);
            for start in self.starts.iter_mut().filter(|start| **start != FREE) {
                let length = key_length(&self.bytes, *start);
                let old = *start;
                *start = bytes.len();
                bytes.extend_from_slice(&self.bytes[old..old + 4 + length]);
            }
            self.bytes = bytes;
        }
    }

    /// Whether a slot is free.
    pub(crate) fn is_free(&self, slot: u32) -> bool {
        self.starts[slot as usize] == FREE
    }

    /// Bytes of the keys' text.
    pub(crate) fn text_bytes(&self) -> usize {
        self.bytes.len() - self.reuse.as_ref().map_or(0, |reuse| reuse.garbage)
    }

    /// The encoded key of a slot.
    pub fn key(&self, slot: u32) -> &[u8] {
        key_bytes(&self.bytes, &self.starts, slot)
    }

    /// The group of a slot.
    pub fn group(&self, slot: u32) -> u16 {
        self.groups[slot as usize]
    }

    /// The slots of a group, in order of appearance. (Not known where slots are reused.)
    pub fn in_group(&self, group: u16) -> &[u32] {
        &self.by_group[group as usize]
    }

    /// The key columns of rows that belong to `slots`: what operators send on with rows of their own making.
    pub fn columns(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut builders: Vec<ColumnBuilder> = self.types.iter().map(ColumnBuilder::new).collect();
        for slot in slots {
            let mut key = self.key(*slot);
            for builder in &mut builders {
                key = builder.push(key)?;
            }
        }
        let arrays = builders.into_iter().map(ColumnBuilder::finish);
        arrays
            .zip(&self.types)
            .map(
                |(array, t)| {
                    if array.data_type() == t { Ok(array) } else { Ok(arrow::compute::cast(&array, t)?) }
                },
            )
            .collect()
    }
}

fn key_length(bytes: &[u8], start: usize) -> usize {
    bytes[start..].first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize)
}

fn key_bytes<'a>(bytes: &'a [u8], starts: &[usize], slot: u32) -> &'a [u8] {
    let start = starts[slot as usize];
    &bytes[start + 4..start + 4 + key_length(bytes, start)]
}

enum ColumnBuilder {
    Symbol(StringDictionaryBuilder<Int32Type>),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Uint(UInt64Builder),
}

impl ColumnBuilder {
    fn new(t: &DataType) -> Self {
        match t {
            DataType::Dictionary(..) => Self::Symbol(StringDictionaryBuilder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            t if t.is_unsigned_integer() => Self::Uint(UInt64Builder::new()),
            _ => Self::Int(Int64Builder::new()),
        }
    }

    /// Takes one value off the front of an encoded key, gives the rest.
    fn push<'a>(&mut self, key: &'a [u8]) -> Result<&'a [u8], OperatorError> {
        let broken = || OperatorError::State("a stored key is malformed".into());
        let (tag, rest) = key.split_first().ok_or_else(broken)?;
        let fixed = |n: usize| rest.split_at_checked(n).ok_or_else(broken);
        match (tag, self) {
            (&TEXT, builder) => {
                let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(broken)?;
                let (text, rest) =
                    rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(broken)?;
                let text = std::str::from_utf8(text).map_err(|_| broken())?;
                match builder {
                    Self::Symbol(b) => drop(b.append(text)?),
                    Self::Text(b) => b.append_value(text),
                    _ => return Err(broken()),
                }
                Ok(rest)
            }
            (&BOOL, Self::Bool(b)) => {
                let (value, rest) = fixed(1)?;
                b.append_value(value[0] == 1);
                Ok(rest)
            }
            (&INT, Self::Int(b)) => {
                let (value, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
                b.append_value(i64::from_le_bytes(*value));
                Ok(rest)
            }
            (&UINT, Self::Uint(b)) => {
                let (value, rest) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
                b.append_value(u64::from_le_bytes(*value));
                Ok(rest)
            }
            _ => Err(broken()),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Symbol(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) => Arc::new(b.finish()),
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Uint(mut b) => Arc::new(b.finish()),
        }
    }
}
