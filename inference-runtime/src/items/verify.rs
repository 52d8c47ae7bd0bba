//! Whether rows may enter the table: names, types, shapes, ids and values, by the rules that hold for requests.

use std::collections::HashSet;

use super::snapshot::Items;
use super::{Fill, ItemTable, bf16};
use crate::engine::{Data, Dim, Tensor};
use crate::ids::IdRules;
use crate::model::config::ModelConfig;

impl ItemTable {
    /// Items from one tensor of ids and one for each filled input. `source` says where a tensor of some name is from.
    pub(super) fn verified(
        &self,
        config: &ModelConfig,
        given: Vec<(String, Tensor)>,
        source: impl Fn(&str) -> String,
    ) -> Result<Items, String> {
        let mut given = given;
        let mut take = |name: &str| {
            let index = given.iter().position(|(own, _)| own == name);
            let index = index.ok_or_else(|| {
                let all: Vec<&str> = std::iter::once(self.ids.name.as_str())
                    .chain(self.filled())
                    .collect();
                format!(
                    "{} is missing; the item table has {}",
                    source(name),
                    all.join(", ")
                )
            })?;
            Ok::<Tensor, String>(given.swap_remove(index).1)
        };
        let name = self.ids.name.as_str();
        let ids = ids(take(name)?).map_err(|error| format!("{}: {error}", source(name)))?;
        let mut rows = Vec::with_capacity(self.fills.len());
        for fill in &self.fills {
            let mut tensor = take(fill.name())?;
            let checked = fill.check((config, &self.rules), &ids, &mut tensor);
            checked.map_err(|error| format!("{}: {error}", source(fill.name())))?;
            let kept = fill.kept(&ids, &tensor.data);
            rows.push(kept.map_err(|error| format!("{}: {error}", source(fill.name())))?);
        }
        match given.first() {
            Some((name, _)) => Err(format!(
                "{} is there twice, or not of the item table",
                source(name)
            )),
            None => Ok(Items { ids, rows }),
        }
    }
}

/// Each id once.
fn ids(tensor: Tensor) -> Result<Vec<i64>, String> {
    let ids = match (tensor.data, &tensor.shape[..]) {
        (Data::I64(ids), [_]) => ids,
        (data, shape) => {
            let datatype = data.datatype().name();
            return Err(format!(
                "is {datatype} of shape {shape:?}; ids are INT64 of shape [items]"
            ));
        }
    };
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().position(|id| !seen.insert(*id)) {
        Some(row) => Err(format!(
            "row {row} has id {} again; leave one of its rows out",
            ids[row]
        )),
        None => Ok(ids),
    }
}

impl Fill {
    /// The rows as the table keeps them.
    fn kept(&self, ids: &[i64], data: &Data) -> Result<Vec<u8>, String> {
        match data {
            Data::F32(values) if self.row.half => bf16::bytes(values).map_err(|element| {
                let row = element / self.row.width;
                let value = values[element];
                format!(
                    "row {row} (id {}): {value} at element {element} is beyond the range of bf16; leave \
                     itemTable.precision out of config.yaml, or correct it",
                    ids[row]
                )
            }),
            _ => {
                let mut bytes = Vec::new();
                data.to_bytes(&mut bytes);
                Ok(bytes)
            }
        }
    }

    fn check(
        &self,
        (config, rules): (&ModelConfig, &IdRules),
        ids: &[i64],
        tensor: &mut Tensor,
    ) -> Result<(), String> {
        let spec = &self.slot.spec;
        let datatype = tensor.data.datatype();
        if datatype != spec.datatype {
            return Err(format!(
                "is {}, the model takes {}",
                datatype.name(),
                spec.datatype.name()
            ));
        }
        let fixed = |(size, dim): (&usize, &Dim)| *dim == Dim::Fixed(*size);
        let row_fits =
            tensor.shape.len() == spec.dims.len() && tensor.shape.iter().zip(&spec.dims).skip(1).all(fixed);
        if !row_fits || tensor.shape[0] != ids.len() {
            return Err(format!(
                "has shape {:?}; there are {} ids, and the model takes {:?}",
                tensor.shape,
                ids.len(),
                spec.protocol_shape()
            ));
        }
        let bad = config.not_finite(&self.input, self.name(), tensor);
        let bad = bad.or_else(|| rules.of(self.name())?.admit(&mut tensor.data).err());
        match bad {
            Some((element, message)) => {
                let row = element / self.row.width;
                Err(format!("row {row} (id {}): {message}", ids[row]))
            }
            None => Ok(()),
        }
    }
}
