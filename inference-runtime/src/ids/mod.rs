//! Ids of requests: which ones there may be, and what becomes of others.
//!
//! `policy` is what config.yaml says, `hash` the functions by name; `rules` puts that and what the model's own tables tell
//! together, once, when a model is loaded. A request's ids are hashed as they are read, and the others looked at when
//! their tensor fits the model.

mod farmhash;
mod hash;
mod policy;
mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use hash::{Bucket, HashName};
pub use policy::{Policy, PolicyKeys};
pub use rules::Source;

use crate::engine::{Data, Datatype};

/// What holds for a column of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Ids from 0 to below this have a row, and who says so; `None` when it is not known.
    pub vocabulary: Option<(u64, Source)>,
    pub policy: Policy,
}

impl Column {
    /// The largest id that may go to the model. Unsigned: ids below 0 are beyond every vocabulary.
    fn last(&self) -> u64 {
        self.vocabulary
            .as_ref()
            .map_or(u64::MAX, |(size, _)| size.saturating_sub(1))
    }

    fn bucket(&self) -> Option<Bucket> {
        match (&self.policy, &self.vocabulary) {
            (Policy::Hash { function, .. }, Some((rows, _))) => Some(Bucket {
                function: *function,
                rows: *rows,
            }),
            _ => None,
        }
    }
}

/// Ids that are looked at as a whole, at least.
const BLOCK: usize = 32;

/// The rules of an input, or a part of one, as requests send it.
#[derive(Clone, Debug)]
pub struct InputRules {
    /// As in requests.
    name: String,
    /// The model's input that it is, or is a part of.
    input: String,
    /// What the model takes: I64 or I32.
    datatype: Datatype,
    columns: Vec<Column>,
    /// Of each column, for some rows in turn.
    last: Vec<u64>,
    buckets: Vec<Option<Bucket>>,
    /// Ids that a default row stood in for; the parts of an input count together.
    replaced: Arc<AtomicU64>,
}

impl InputRules {
    fn new(
        name: &str,
        (input, datatype): (&str, Datatype),
        columns: Vec<Column>,
        replaced: Arc<AtomicU64>,
    ) -> Self {
        let last = BLOCK.next_multiple_of(columns.len());
        Self {
            name: name.to_owned(),
            input: input.to_owned(),
            datatype,
            last: columns.iter().map(Column::last).cycle().take(last).collect(),
            buckets: columns.iter().map(Column::bucket).collect(),
            columns,
            replaced,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// One a column; elements of a tensor have them in turn.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether every value is hashed, so that it may be text.
    pub fn takes_text(&self) -> bool {
        self.buckets.iter().all(Option::is_some)
    }

    /// The row of a text, which is the element at `index` of a tensor that [takes text](Self::takes_text).
    pub fn row_of_text(&self, index: usize, text: &[u8]) -> i64 {
        let bucket = self.buckets[index % self.buckets.len()];
        let row = bucket.map_or(0, |bucket| bucket.row(text));
        i64::try_from(row).expect("hashed vocabularies are within the model's datatype")
    }

    /// Rows as the model takes them.
    pub fn data(&self, rows: Vec<i64>) -> Data {
        match self.datatype {
            Datatype::I32 => Data::I32(rows.into_iter().map(narrow).collect()),
            _ => Data::I64(rows),
        }
    }

    /// Whether both hash each column alike; without rules none is hashed.
    pub fn hash_alike(one: Option<&Self>, other: Option<&Self>) -> bool {
        let buckets = |rules: Option<&Self>| {
            let buckets = rules.map_or(&[][..], |rules| &rules.buckets);
            let hashed = buckets.iter().any(Option::is_some);
            hashed.then(|| buckets.to_vec())
        };
        buckets(one) == buckets(other)
    }

    /// Hashes the numbers of hashed columns.
    pub fn hash_numbers(&self, data: &mut Data) {
        if self.buckets.iter().all(Option::is_none) {
            return;
        }
        match data {
            Data::I64(ids) => self.hash_each(ids, |id| id, |row| row),
            Data::I32(ids) => self.hash_each(ids, i64::from, narrow),
            _ => {}
        }
    }

    fn hash_each<T: Copy>(&self, ids: &mut [T], wide: impl Fn(T) -> i64, narrow: impl Fn(i64) -> T) {
        for row in ids.chunks_mut(self.buckets.len()) {
            for (id, bucket) in row.iter_mut().zip(&self.buckets) {
                if let Some(bucket) = bucket {
                    *id = narrow(bucket.row_of_number(wide(*id)).cast_signed());
                }
            }
        }
    }

    /// Puts default rows where ids are outside of their vocabularies, and says for how many; or the element that is
    /// refused, and why.
    pub fn admit(&self, data: &mut Data) -> Result<u64, (usize, String)> {
        match data {
            Data::I64(ids) => self.admit_ids(ids, |row| row),
            Data::I32(ids) => self.admit_ids(ids, narrow),
            _ => Ok(0),
        }
    }

    /// Some rows are looked at as a whole, which takes a fraction of the time.
    fn admit_ids<T: Copy + Into<i64>>(
        &self,
        ids: &mut [T],
        narrow: impl Fn(i64) -> T,
    ) -> Result<u64, (usize, String)> {
        let outside = |(id, last): (&T, &u64)| (*id).into().cast_unsigned() > *last;
        let any = |block: &[T]| {
            block
                .iter()
                .zip(&self.last)
                .fold(false, |any, pair| any | outside(pair))
        };
        let mut replaced = 0;
        for (block, ids) in ids.chunks_mut(self.last.len()).enumerate() {
            if !any(ids) {
                continue;
            }
            for (place, (id, last)) in ids.iter_mut().zip(&self.last).enumerate() {
                if !outside((id, last)) {
                    continue;
                }
                let column = place % self.columns.len();
                let Policy::DefaultRow(default) = self.columns[column].policy else {
                    let element = block * self.last.len() + place;
                    return Err((element, self.refusal(element, column, (*id).into())));
                };
                *id = narrow(default.cast_signed());
                replaced += 1;
            }
        }
        Ok(replaced)
    }

    fn refusal(&self, element: usize, column: usize, id: i64) -> String {
        let last = self.last[column];
        format!(
            "input {:?} has id {id} at element {element} (column {column}), outside its vocabulary of {}; send ids from 0 \
             to {last}",
            self.name,
            last.saturating_add(1)
        )
    }

    pub fn count(&self, replaced: u64) {
        if replaced > 0 {
            self.replaced.fetch_add(replaced, Ordering::Relaxed);
        }
    }
}

/// Rows and defaults are below the vocabulary, which is within the model's datatype.
#[allow(clippy::cast_possible_truncation)]
fn narrow(row: i64) -> i32 {
    row as i32
}

/// The rules of a model, for each input, or part of one, about which something is known.
#[derive(Clone, Debug, Default)]
pub struct IdRules {
    inputs: Vec<InputRules>,
}

impl IdRules {
    /// By the name that requests use.
    pub fn of(&self, name: &str) -> Option<&InputRules> {
        self.inputs.iter().find(|rules| rules.name == name)
    }

    /// Of each of the model's inputs, those that are no parts.
    pub fn whole(&self) -> impl Iterator<Item = &InputRules> {
        self.inputs.iter().filter(|rules| rules.name == rules.input)
    }

    /// For each of the model's inputs with a default row: its name, and how many ids that stood in for since this was last asked.
    pub fn take_replaced(&self) -> impl Iterator<Item = (&str, u64)> {
        let defaults = |rules: &&InputRules| {
            let default = |column: &Column| matches!(column.policy, Policy::DefaultRow(_));
            rules.columns.iter().any(default)
        };
        let count = |rules: &InputRules| rules.replaced.swap(0, Ordering::Relaxed);
        self.whole()
            .filter(defaults)
            .map(move |rules| (rules.name.as_str(), count(rules)))
    }

    /// Whether other rules make the same of the ids that both let pass.
    pub fn alike(&self, other: &IdRules) -> bool {
        let changes = |rules: &IdRules| {
            let inputs = rules.whole().map(|input| {
                let column = |column: &Column| match column.policy {
                    Policy::Refuse => None,
                    Policy::DefaultRow(row) => Some((row, None)),
                    Policy::Hash { .. } => Some((0, column.bucket())),
                };
                let columns: Vec<_> = input.columns.iter().map(column).collect();
                (input.name.clone(), columns)
            });
            let changed = |(_, columns): &(String, Vec<Option<_>>)| columns.iter().any(Option::is_some);
            inputs.filter(changed).collect::<Vec<_>>()
        };
        changes(self) == changes(other)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
