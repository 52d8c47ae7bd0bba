//! A tensor as a request declares it, and its values: possible in themselves, not yet compared with the model.

use super::{ApiError, text, values};
use crate::engine::{Data, Datatype, tensor};
use crate::ids::InputRules;

/// The protocol's datatype of values of any length.
pub const BYTES: &str = "BYTES";

/// How values come.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    Numbers(Datatype),
    /// BYTES, of an input whose values are all hashed.
    Text(&'a InputRules),
}

pub struct Declared<'a> {
    pub form: Form<'a>,
    pub shape: Vec<usize>,
    /// Elements.
    pub count: usize,
    rules: Option<&'a InputRules>,
}

impl<'a> Declared<'a> {
    /// `rules` are the input's, if any.
    pub fn new(
        name: &str,
        datatype: &str,
        shape: &[i64],
        rules: Option<&'a InputRules>,
    ) -> Result<Self, ApiError> {
        let invalid = |what: String| ApiError::invalid(format!("input {name:?}: {what}"));
        let form = form(datatype, rules).map_err(invalid)?;
        let sizes: Result<Vec<usize>, _> = shape.iter().map(|size| usize::try_from(*size)).collect();
        let sizes = sizes.map_err(|_| invalid(format!("shape {shape:?} has a negative dimension")))?;
        let count = sizes
            .iter()
            .try_fold(1_usize, |product, size| product.checked_mul(*size));
        let least = match form {
            Form::Numbers(datatype) => datatype.size(),
            Form::Text(_) => text::PREFIX,
        };
        let Some(count) = count.filter(|count| count.checked_mul(least).is_some()) else {
            return Err(invalid(format!("shape {shape:?} is too large")));
        };
        Ok(Self {
            form,
            shape: sizes,
            count,
            rules,
        })
    }

    /// Bytes of all elements, where their datatype says it.
    pub fn bytes(&self) -> Option<usize> {
        match self.form {
            Form::Numbers(datatype) => Some(self.count * datatype.size()),
            Form::Text(_) => None,
        }
    }

    /// Of as many bytes as [`Declared::bytes`] says, if it does.
    pub fn from_bytes(&self, bytes: &[u8]) -> Result<Data, String> {
        match self.form {
            Form::Numbers(datatype) => {
                let data = tensor::from_bytes(datatype, bytes);
                Ok(self.hashed(data.ok_or("a BOOL is neither 0 nor 1")?))
            }
            Form::Text(rules) => text::from_bytes(rules, bytes, self.count),
        }
    }

    pub fn from_json(&self, json: &str) -> Result<Data, serde_json::Error> {
        match self.form {
            Form::Numbers(datatype) => {
                values::parse(datatype, json, self.count).map(|data| self.hashed(data))
            }
            Form::Text(rules) => text::from_json(rules, json, self.count),
        }
    }

    /// Numbers as the model takes them.
    pub fn hashed(&self, mut data: Data) -> Data {
        if let Some(rules) = self.rules {
            rules.hash_numbers(&mut data);
        }
        data
    }
}

fn form<'a>(datatype: &str, rules: Option<&'a InputRules>) -> Result<Form<'a>, String> {
    if let Some(datatype) = Datatype::parse(datatype) {
        return Ok(Form::Numbers(datatype));
    }
    match rules {
        Some(rules) if datatype == BYTES && rules.takes_text() => return Ok(Form::Text(rules)),
        _ => {}
    }
    let known: Vec<&str> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
    let known = known.join(", ");
    let hint = match datatype {
        BYTES => "; it is for inputs that are hashed (inputs.NAME.policies in config.yaml)",
        _ => "",
    };
    Err(format!("datatype {datatype:?} is not one of {known}{hint}"))
}
