//! The intermediate representation: device neutral, without precision, in topological order by construction.
//!
//! Every value's element type and shape are known when its node is added ([`Graph::push`] infers them and folds
//! constants), so passes never meet a half-described graph.

mod extent;
mod op;

use std::sync::Arc;

#[cfg(test)]
pub use extent::extents;
pub use extent::{Extent, display as display_shape};
pub use op::{Binary, Op, Reduction, Unary};

use crate::pass::{fold, shape};
use crate::tensor::{Element, Tensor};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a value before any input is.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    pub element: Element,
    pub shape: Vec<Extent>,
    /// The elements themselves, of small integer tensors that hold sizes.
    pub sizes: Option<Vec<Extent>>,
}

impl Fact {
    pub fn new(element: Element, shape: Vec<Extent>) -> Self {
        Self {
            element,
            shape,
            sizes: None,
        }
    }

    /// The one axis that grows with the rows.
    pub fn batch_axis(&self) -> Option<usize> {
        self.shape.iter().position(|extent| !extent.is_fixed())
    }
}

#[derive(Clone, Debug)]
pub struct Value {
    /// Name in the ONNX file, or one made for a step of the lowering.
    pub name: String,
    pub fact: Fact,
    pub constant: Option<Arc<Tensor>>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
}

#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub values: Vec<Value>,
    pub nodes: Vec<Node>,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// Elements of the constants that the graph was given.
    given: usize,
    /// Elements of those that were computed from them.
    folded: usize,
}

impl Graph {
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.value(id).fact
    }

    pub fn shape(&self, id: ValueId) -> &[Extent] {
        &self.fact(id).shape
    }

    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        self.value(id).constant.as_deref()
    }

    fn add(&mut self, value: Value) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("a graph has fewer than 2^32 values"));
        self.values.push(value);
        id
    }

    pub fn add_input(&mut self, name: &str, fact: Fact) -> ValueId {
        let id = self.add(Value {
            name: name.to_owned(),
            fact,
            constant: None,
        });
        self.inputs.push(id);
        id
    }

    pub fn add_constant(&mut self, name: &str, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        let tensor = tensor.into();
        self.given = self.given.saturating_add(tensor.count());
        self.add_known(name, tensor)
    }

    /// A constant that is not in the file, of so many `elements`.
    pub fn add_computed(
        &mut self,
        name: &str,
        elements: usize,
        make: impl FnOnce() -> Tensor,
    ) -> Result<ValueId, String> {
        fold::check_room(self, self.folded, elements)?;
        self.folded = self.folded.saturating_add(elements);
        Ok(self.add_known(name, make().into()))
    }

    /// Whether constants may make so many elements: a file of some bytes can ask for any amount of memory.
    pub fn allows_constants(&self, elements: usize) -> bool {
        elements <= fold::FLOOR.saturating_add(self.given.saturating_mul(fold::FACTOR))
    }

    fn add_known(&mut self, name: &str, tensor: Arc<Tensor>) -> ValueId {
        let fact = fold::constant_fact(&tensor);
        self.add(Value {
            name: name.to_owned(),
            fact,
            constant: Some(tensor),
        })
    }

    /// A value whose elements are sizes: a constant where they are fixed, else known only symbolically.
    pub fn add_sizes(
        &mut self,
        name: &str,
        element: Element,
        shape: Vec<usize>,
        sizes: Vec<Extent>,
    ) -> ValueId {
        if sizes.iter().all(|size| size.is_fixed()) {
            return self.add_constant(name, fold::sizes_tensor(element, shape, &sizes));
        }
        let shape = shape.into_iter().map(Extent::of).collect();
        self.add(Value {
            name: name.to_owned(),
            fact: Fact {
                element,
                shape,
                sizes: Some(sizes),
            },
            constant: None,
        })
    }

    /// Adds a node: infers what comes out, and computes it at once when every input is constant.
    /// An error is the reason why the graph is refused.
    pub fn push(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, String> {
        let facts: Vec<&Fact> = inputs.iter().map(|id| self.fact(*id)).collect();
        let outputs = shape::infer(&op, &facts)?;
        let constant = inputs.iter().all(|id| self.constant(*id).is_some());
        let largest = if constant {
            shape::LARGEST_CONSTANT
        } else {
            shape::LARGEST_ROW
        };
        outputs
            .iter()
            .try_for_each(|fact| shape::check_size(fact, largest))?;
        if let Some(tensors) = fold::fold(self, self.folded, &op, inputs, &outputs)? {
            return Ok(tensors
                .into_iter()
                .map(|tensor| {
                    self.folded = self.folded.saturating_add(tensor.count());
                    self.add_known(name, tensor.into())
                })
                .collect());
        }
        if let [
            Fact {
                sizes: Some(sizes),
                element,
                shape,
            },
        ] = outputs.as_slice()
        {
            let shape = shape
                .iter()
                .map(|extent| extent.as_fixed().unwrap_or(0))
                .collect();
            let (element, sizes) = (*element, sizes.clone());
            return Ok(vec![self.add_sizes(name, element, shape, sizes)]);
        }
        if let Some(size) = inputs.iter().find(|id| self.is_size(**id)) {
            return Err(format!(
                "{:?} holds the number of rows, and is used as a number here",
                self.value(*size).name
            ));
        }
        let outputs: Vec<ValueId> = outputs
            .into_iter()
            .map(|fact| {
                self.add(Value {
                    name: name.to_owned(),
                    fact,
                    constant: None,
                })
            })
            .collect();
        self.nodes.push(Node {
            name: name.to_owned(),
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
        });
        Ok(outputs)
    }

    /// [`Graph::push`] for an operator with one output.
    pub fn push_one(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        self.push(name, op, inputs).map(|outputs| outputs[0])
    }

    /// Whether the value exists only symbolically, as a size that depends on the rows.
    fn is_size(&self, id: ValueId) -> bool {
        let value = self.value(id);
        value.constant.is_none() && value.fact.sizes.is_some()
    }
}
