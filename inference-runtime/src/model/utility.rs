//! What ranks when a model predicts several things: a weighted sum of its heads, or a product of their powers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::top_k::named_column;
use crate::engine::{Data, Datatype, Outputs, TensorSpec};

/// `topK.utility`: exactly one of them. Heads are outputs, `NAME`, or columns of outputs, `NAME[COLUMN]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UtilityConfig {
    /// Each head times its weight, added up.
    pub sum: Option<BTreeMap<String, f64>>,
    /// Each head to the power of its exponent, multiplied.
    pub product: Option<BTreeMap<String, f64>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Utility {
    kind: Kind,
    heads: Vec<Head>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sum,
    Product,
}

#[derive(Clone, Debug, PartialEq)]
struct Head {
    output: usize,
    column: usize,
    /// A weight, or an exponent.
    factor: f64,
}

impl Utility {
    /// Finds the heads among a model's outputs. An error says where in `topK.utility`.
    pub fn of(config: &UtilityConfig, outputs: &[TensorSpec]) -> Result<Self, String> {
        let (kind, key, heads) = match (&config.sum, &config.product) {
            (Some(heads), None) => (Kind::Sum, "sum", heads),
            (None, Some(heads)) => (Kind::Product, "product", heads),
            _ => return Err(": give either sum or product".to_owned()),
        };
        if heads.is_empty() {
            return Err(format!(".{key} is empty; name the outputs that count"));
        }
        let found = heads.iter().map(|(name, factor)| head(name, *factor, outputs));
        let heads = found
            .collect::<Result<_, _>>()
            .map_err(|error| format!(".{key}: {error}"))?;
        Ok(Self { kind, heads })
    }

    /// The utility of each of `rows` candidates, by the model's `outputs`; in double precision, heads in the order of their
    /// names. Those of the `kept` candidates are finite, or it is an error.
    pub fn values(&self, outputs: &Outputs, rows: usize, kept: &[usize]) -> Result<Vec<f64>, String> {
        if rows == 0 {
            return Ok(Vec::new());
        }
        let mut values = match self.kind {
            Kind::Sum => vec![0.0; rows],
            Kind::Product => vec![1.0; rows],
        };
        for head in &self.heads {
            let tensor = outputs.tensors.get(head.output);
            let tensor = tensor.filter(|tensor| tensor.shape.first() == Some(&rows));
            let tensor = tensor.ok_or("an output has not one row a candidate")?;
            let width = tensor.data.count() / rows;
            let places = (0..rows).map(|row| row * width + head.column);
            match &tensor.data {
                Data::F32(own) => self.add(
                    &mut values,
                    places.map(|place| f64::from(own[place])),
                    head.factor,
                ),
                Data::F64(own) => self.add(&mut values, places.map(|place| own[place]), head.factor),
                _ => return Err("a head of utility is not of floats".to_owned()),
            }
        }
        match kept.iter().find(|place| !values[**place].is_finite()) {
            Some(place) => Err(format!(
                "utility is NaN or infinity for candidate {place}; correct topK.utility in config.yaml, or the model"
            )),
            None => Ok(values),
        }
    }

    fn add(&self, values: &mut [f64], head: impl Iterator<Item = f64>, factor: f64) {
        for (value, head) in values.iter_mut().zip(head) {
            match self.kind {
                Kind::Sum => *value += factor * head,
                Kind::Product => *value *= head.powf(factor),
            }
        }
    }
}

fn head(written: &str, factor: f64, outputs: &[TensorSpec]) -> Result<Head, String> {
    if !factor.is_finite() {
        return Err(format!("{written} has {factor}; give a finite number"));
    }
    let types = (&[Datatype::F32, Datatype::F64][..], "; heads are FP32 or FP64");
    let (output, column) = named_column("output", written, outputs, types)?;
    Ok(Head {
        output,
        column,
        factor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Dim, Tensor};

    fn outputs() -> Vec<TensorSpec> {
        let rows = || Dim::Named("n".into());
        vec![
            TensorSpec::new("click", Datatype::F32, vec![rows()]),
            TensorSpec::new("heads", Datatype::F64, vec![rows(), Dim::Fixed(2)]),
            TensorSpec::new("class", Datatype::I64, vec![rows()]),
        ]
    }

    fn utility(text: &str) -> Result<Utility, String> {
        Utility::of(&serde_yaml::from_str(text).unwrap(), &outputs())
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("{}", ": give either sum or product"),
            (
                "{sum: {click: 1}, product: {click: 1}}",
                ": give either sum or product",
            ),
            ("sum: {}", ".sum is empty"),
            (
                "product: {clicks: 1}",
                ".product: the model has no output \"clicks\"; it has click, heads, class",
            ),
            ("sum: {heads: 1}", "name one of its columns, as heads[0]"),
            ("sum: {'heads[2]': 1}", "name one of its columns"),
            ("sum: {'heads[a]': 1}", "NAME[COLUMN]"),
            ("sum: {class: 1}", "output \"class\" is INT64"),
            ("sum: {click: .nan}", "click has NaN"),
        ] {
            let error = utility(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn sums_and_products() {
        let tensor = |shape: &[usize], data| Tensor {
            shape: shape.to_vec(),
            data,
        };
        let mut outputs = Outputs {
            tensors: vec![
                tensor(&[2], Data::F32(vec![0.5, 0.25])),
                tensor(&[2, 2], Data::F64(vec![9.0, 4.0, 9.0, 16.0])),
            ],
        };
        let values = |text: &str, outputs: &Outputs| utility(text).unwrap().values(outputs, 2, &[0, 1]);
        assert_eq!(
            values("sum: {click: 2, 'heads[1]': -0.5}", &outputs),
            Ok(vec![-1.0, -7.5])
        );
        assert_eq!(
            values("product: {click: 2, 'heads[1]': 0.5}", &outputs),
            Ok(vec![0.5, 0.25])
        );
        assert!(
            utility("sum: {click: 1}")
                .unwrap()
                .values(&outputs, 3, &[0, 1, 2])
                .is_err()
        );
        outputs.tensors[0].data = Data::F32(vec![0.5, 0.0]);
        let error = values("product: {click: -1}", &outputs).unwrap_err();
        assert!(error.contains("candidate 1"), "{error}");
        let kept = utility("product: {click: -1}").unwrap().values(&outputs, 2, &[0]);
        assert_eq!(kept.unwrap()[0], 2.0);
    }
}
