//! Ranking models from ONNX to numbers that never depend on the batch a pair rode in.
//!
//! ```text
//! bytes -> onnx::import -> ir::Graph -> passes (rows, domains, ...) -> interpret | kernels | onnx::emit
//! ```
//!
//! The crate does no I/O and has no async: files beside a model come through [`onnx::ExternalData`]. A graph outside of
//! the operator set is refused with one reason that names the node.

pub mod interpret;
pub mod ir;
pub mod kernel;
pub mod onnx;
pub mod pass;
pub mod plan;
pub mod tensor;

use ir::Graph;
use onnx::{ExternalData, Refusal};
use pass::hoist::{self, Columns, Once};
use pass::rows::{self, Rows};
use prost::Message as _;

/// A model ready to be run or rewritten.
#[derive(Clone, Debug)]
pub struct Model {
    pub graph: Graph,
    pub rows: Rows,
}

impl Model {
    /// Reads `model.onnx`; data in other files comes through `external`.
    pub fn load(content: &[u8], external: &dyn ExternalData) -> Result<Self, Refusal> {
        let graph = onnx::import(&onnx::decode(content)?, external)?;
        let rows = rows::prove(&graph);
        Ok(Self { graph, rows })
    }
}

/// Rewrites a model so that what depends on the request alone is computed once, as ONNX for any server.
///
/// `once` names what belongs to the request; an input whose columns are split arrives as `NAME.user` and `NAME.item`.
/// The first dimension of the request's inputs is 1 in the result.
pub fn optimize(
    content: &[u8],
    external: &dyn ExternalData,
    once: &[(String, Once)],
) -> Result<Vec<u8>, String> {
    let model = Model::load(content, external).map_err(|refusal| refusal.to_string())?;
    if let Rows::Listwise(reason) = &model.rows {
        return Err(format!("nothing can be hoisted from a listwise model: {reason}"));
    }
    let hoisted = hoist::hoist(&model.graph, once)?;
    Ok(onnx::emit(&hoisted.graph, &hoisted.request)?.encode_to_vec())
}

/// `dense` is a whole input, `sparse[0:20]` or `sparse[0:4,10:20]` are columns of one.
pub fn parse_once(declared: &[&str]) -> Result<Vec<(String, Once)>, String> {
    let parse = |text: &&str| {
        let wrong = || format!("{text:?} is neither NAME nor NAME[START:END,...]");
        let Some((name, rest)) = text.split_once('[') else {
            return Ok(((*text).to_owned(), Once::Whole));
        };
        let mut columns = Vec::new();
        for range in rest.strip_suffix(']').ok_or_else(wrong)?.split(',') {
            let (start, end) = range.split_once(':').ok_or_else(wrong)?;
            let (Ok(start), Ok(end)) = (start.parse(), end.parse()) else {
                return Err(wrong());
            };
            columns.push(Columns { start, end });
        }
        Ok((name.to_owned(), Once::Columns(columns)))
    };
    declared.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read_or_named() {
        let columns = Once::Columns(vec![Columns { start: 0, end: 4 }, Columns { start: 10, end: 20 }]);
        let expected = vec![("dense".to_owned(), Once::Whole), ("sparse".to_owned(), columns)];
        assert_eq!(parse_once(&["dense", "sparse[0:4,10:20]"]), Ok(expected));
        for wrong in ["sparse[0:4", "sparse[4]", "sparse[a:b]"] {
            assert!(parse_once(&[wrong]).unwrap_err().contains(wrong));
        }
    }
}
