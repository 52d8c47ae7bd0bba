//! One ONNX node into IR nodes; a family of operators a file.

mod elementwise;
mod layout;
mod linear;
mod reduce;
mod shapes;
mod trees;

use super::step::Step;
use crate::ir::ValueId;

/// Values of the node's outputs, or why it is not taken.
pub fn lower(step: &mut Step<'_, '_>) -> Result<Vec<ValueId>, String> {
    let families = [
        elementwise::lower,
        layout::lower,
        linear::lower,
        reduce::lower,
        shapes::lower,
        trees::lower,
    ];
    for family in families {
        if let Some(outputs) = family(step)? {
            return Ok(outputs);
        }
    }
    Err("this operator is not in rank's set".to_owned())
}

/// What a family answers: `None` for operators of other families.
type Lowered = Result<Option<Vec<ValueId>>, String>;

fn one(id: ValueId) -> Lowered {
    Ok(Some(vec![id]))
}
