//! What config.yaml and the model's own tables say of ids, put together. What does not fit is an error that names the key.

use std::fmt;
use std::sync::Arc;

use rank::pass::vocabulary::Vocabulary;

use super::{Bucket, Column, IdRules, InputRules, Policy};
use crate::engine::layout::Place;
use crate::engine::{Datatype, Dim, Layout, Signature, TensorSpec};
use crate::failure::{LoadFailure, Reason};
use crate::model::config::{InputConfig, ModelConfig};
use crate::model::top_k::named_column;

/// Who says how many ids there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Config,
    /// The rows of the table that the ids are looked up in.
    Model,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Config => "config.yaml",
            Source::Model => "the model's tables",
        })
    }
}

fn invalid(error: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ConfigInvalid, format!("config.yaml: {error}"))
}

impl IdRules {
    /// The rules of a model; `proven` is what its graph says. An error names the key and the remedy.
    pub fn new(
        config: &ModelConfig,
        (signature, layout): (&Signature, &Layout),
        proven: &[Vocabulary],
    ) -> Result<Self, LoadFailure> {
        let mut inputs = Vec::new();
        for (spec, place) in signature.inputs.iter().zip(&layout.places) {
            let own = config.inputs.get(&spec.name);
            let proven = proven.iter().find(|vocabulary| vocabulary.input == spec.name);
            let columns = columns(spec, own, proven)
                .map_err(|error| invalid(format!("inputs.{}.{error}", spec.name)))?;
            if columns.iter().all(|column| column.vocabulary.is_none()) {
                continue;
            }
            let replaced = Arc::default();
            let rules = |name: &str, columns| {
                let input = (spec.name.as_str(), spec.datatype);
                InputRules::new(name, input, columns, Arc::clone(&replaced))
            };
            if let Place::Split { user, item } = place {
                for slot in [user, item].map(|slot| &layout.slots[*slot]) {
                    let part = slot.places().into_iter().map(|place| columns[place].clone());
                    inputs.push(rules(&slot.spec.name, part.collect()));
                }
            }
            inputs.push(rules(&spec.name, columns));
        }
        let rules = Self { inputs };
        rules.keep_told_ids(config, signature).map_err(invalid)?;
        Ok(rules)
    }

    /// Answers tell the ids of the best candidates, which must be those that the client sent.
    fn keep_told_ids(&self, config: &ModelConfig, signature: &Signature) -> Result<(), String> {
        let Some(top_k) = &config.top_k else {
            return Ok(());
        };
        let types = (&[Datatype::I64, Datatype::I32][..], "");
        // What is not found is the item table's, or an error elsewhere.
        let Ok((input, column)) = named_column("input", &top_k.ids, &signature.inputs, types) else {
            return Ok(());
        };
        let rules = self.of(&signature.inputs[input].name);
        let column = rules.and_then(|rules| rules.columns().get(column));
        match column.map(|column| &column.policy) {
            None | Some(Policy::Refuse) => Ok(()),
            Some(policy) => Err(format!(
                "topK.ids: {} has a policy ({policy}), and answers would tell rows instead of ids; send the ids in another \
                 input, or by itemTable.ids",
                top_k.ids
            )),
        }
    }
}

/// The columns of an input: its last dimension, or one where it has none of fixed size.
fn width(spec: &TensorSpec) -> usize {
    match spec.dims.last() {
        Some(Dim::Fixed(size)) if spec.dims.len() > 1 => *size,
        _ => 1,
    }
}

/// None for inputs of other types than ids have. An error goes behind `inputs.NAME.`.
fn columns(
    spec: &TensorSpec,
    config: Option<&InputConfig>,
    proven: Option<&Vocabulary>,
) -> Result<Vec<Column>, String> {
    let (sizes, policies) = config.map_or((&[][..], &[][..]), |own| (&own.vocabularies, &own.policies));
    let largest = match spec.datatype {
        Datatype::I64 => i64::MAX.cast_unsigned(),
        Datatype::I32 => i32::MAX.unsigned_abs().into(),
        other => {
            let key = [
                ("vocabularies", sizes.is_empty()),
                ("policies", policies.is_empty()),
            ];
            return match key.into_iter().find(|(_, empty)| !empty) {
                Some((key, _)) => Err(format!(
                    "{key}: the input is {}, ids are INT64 or INT32",
                    other.name()
                )),
                None => Ok(Vec::new()),
            };
        }
    };
    let width = width(spec);
    for (key, count) in [("vocabularies", sizes.len()), ("policies", policies.len())] {
        if count > 1 && count != width {
            return Err(format!(
                "{key} has {count} entries, the input has {width} columns; give 1 or {width}"
            ));
        }
    }
    let of_column = |column: usize| {
        let vocabulary = vocabulary(entry(sizes, column).copied(), rows(proven, width, column), column)?;
        let policy = entry(policies, column).cloned().unwrap_or_default();
        let column = Column { vocabulary, policy };
        checked(&column, largest).map(|()| column)
    };
    (0..width).map(of_column).collect()
}

/// A column's entry of a list with one for all columns, or one a column.
fn entry<T>(list: &[T], column: usize) -> Option<&T> {
    if list.len() == 1 {
        list.first()
    } else {
        list.get(column)
    }
}

/// Rows of the table that a column is looked up in, where that is proven of all elements that it has in a row.
fn rows(proven: Option<&Vocabulary>, width: usize, column: usize) -> Option<u64> {
    let sizes = &proven?.sizes;
    let own = sizes.iter().skip(column).step_by(width);
    own.copied()
        .try_fold(u64::MAX, |least, size| Some(least.min(size?)))
}

fn vocabulary(
    declared: Option<u64>,
    proven: Option<u64>,
    column: usize,
) -> Result<Option<(u64, Source)>, String> {
    match (declared, proven) {
        (Some(0), _) => Err(format!(
            "vocabularies: column {column} has 0 ids; give at least 1"
        )),
        (Some(size), Some(rows)) if size > rows => Err(format!(
            "vocabularies: {size} ids in column {column}, for which the model's table has {rows} rows; give at most \
             {rows}, or leave it out"
        )),
        (Some(size), _) => Ok(Some((size, Source::Config))),
        (None, rows) => Ok(rows.map(|rows| (rows, Source::Model))),
    }
}

/// Whether a column's policy can be kept; `largest` is the largest id of the datatype.
fn checked(column: &Column, largest: u64) -> Result<(), String> {
    let Column { vocabulary, policy } = column;
    let size = match (policy, vocabulary) {
        (Policy::Refuse, _) => return Ok(()),
        (_, None) => {
            return Err(
                "policies: how many ids there are is not known from the model; say it in vocabularies"
                    .to_owned(),
            );
        }
        (_, Some((size, _))) => *size,
    };
    match policy {
        Policy::DefaultRow(row) if *row >= size => Err(format!(
            "policies: defaultRow is {row}, the vocabulary has {size}; name a row from 0 to {}",
            size - 1
        )),
        _ if size - 1 > largest => Err(format!(
            "vocabularies: {size} ids are more than the input's datatype has, from 0 to {largest}"
        )),
        Policy::Hash { function, goldens } => {
            let bucket = Bucket {
                function: *function,
                rows: size,
            };
            let wrong = goldens
                .iter()
                .map(|(value, row)| (value, *row, bucket.row(value.as_bytes())));
            match wrong.into_iter().find(|(_, golden, row)| golden != row) {
                Some((value, golden, row)) => Err(format!(
                    "policies: {} makes row {row} of {size} of {value:?}, goldens say {golden}; hash as training did",
                    function.as_str()
                )),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
