//! Tensors: typed, row-major, contiguous.

/// Element types of the IR. Integers are kept as `i64`; results of 32-bit ones wrap as 32-bit ones do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    F32,
    I64,
    I32,
    Bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Vec<f32>),
    /// The upper halves of F32 whose lower ones are 0: bf16. Only inputs are; what is made of them is F32.
    Bf16(Vec<u16>),
    /// Of I64 and I32.
    Int(Vec<i64>),
    Bool(Vec<bool>),
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::Bf16(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub element: Element,
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    pub fn f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            element: Element::F32,
            shape,
            data: Data::F32(values),
        }
    }

    /// Numbers of F32 by their upper halves.
    pub fn bf16(shape: Vec<usize>, halves: Vec<u16>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), halves.len());
        Self {
            element: Element::F32,
            shape,
            data: Data::Bf16(halves),
        }
    }

    pub fn i64(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self::int(Element::I64, shape, values)
    }

    /// An integer tensor; values of 32-bit ones wrap.
    pub fn int(element: Element, shape: Vec<usize>, mut values: Vec<i64>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        if element == Element::I32 {
            values.iter_mut().for_each(|value| *value = wrap_i32(*value));
        }
        Self {
            element,
            shape,
            data: Data::Int(values),
        }
    }

    pub fn bool(shape: Vec<usize>, values: Vec<bool>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            element: Element::Bool,
            shape,
            data: Data::Bool(values),
        }
    }

    pub fn scalar(value: f32) -> Self {
        Self::f32(Vec::new(), vec![value])
    }

    pub fn count(&self) -> usize {
        self.data.len()
    }

    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(values) => Some(values),
            _ => None,
        }
    }

    pub fn as_int(&self) -> Option<&[i64]> {
        match &self.data {
            Data::Int(values) => Some(values),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<&[bool]> {
        match &self.data {
            Data::Bool(values) => Some(values),
            _ => None,
        }
    }

    /// The same elements, picked by index from this tensor, in a new shape.
    pub fn pick(&self, shape: Vec<usize>, indices: impl Iterator<Item = usize>) -> Tensor {
        let data = match &self.data {
            Data::F32(values) => Data::F32(indices.map(|index| values[index]).collect()),
            Data::Bf16(halves) => Data::F32(indices.map(|index| widened(halves[index])).collect()),
            Data::Int(values) => Data::Int(indices.map(|index| values[index]).collect()),
            Data::Bool(values) => Data::Bool(indices.map(|index| values[index]).collect()),
        };
        debug_assert_eq!(shape.iter().product::<usize>(), data.len());
        Tensor {
            element: self.element,
            shape,
            data,
        }
    }

    /// The same numbers, not in bf16.
    pub fn into_wide(mut self) -> Tensor {
        if let Data::Bf16(halves) = &self.data {
            self.data = Data::F32(halves.iter().copied().map(widened).collect());
        }
        self
    }

    pub fn reshaped(mut self, shape: Vec<usize>) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), self.count());
        self.shape = shape;
        self
    }
}

/// The number of this upper half.
#[inline(always)]
pub fn widened(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

fn wrap_i32(value: i64) -> i64 {
    // Truncation is the meaning of 32-bit arithmetic.
    #[allow(clippy::cast_possible_truncation)]
    let wrapped = value as i32;
    i64::from(wrapped)
}

/// Strides of a row-major tensor of this shape.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Walks a shape in row-major order, giving for each element the offset in a tensor with other strides.
pub struct Walk {
    shape: Vec<usize>,
    strides: Vec<usize>,
    position: Vec<usize>,
    offset: usize,
    left: usize,
}

impl Walk {
    pub fn new(shape: &[usize], strides: Vec<usize>, start: usize) -> Self {
        debug_assert_eq!(shape.len(), strides.len());
        Self {
            left: shape.iter().product(),
            position: vec![0; shape.len()],
            shape: shape.to_vec(),
            strides,
            offset: start,
        }
    }

    /// A tensor of shape `from` read as if broadcast to `to`.
    pub fn broadcast(from: &[usize], to: &[usize]) -> Self {
        let own = strides(from);
        let skipped = to.len() - from.len();
        let stride = |axis: usize| match axis.checked_sub(skipped) {
            Some(axis) if from[axis] != 1 => own[axis],
            _ => 0,
        };
        Self::new(to, (0..to.len()).map(stride).collect(), 0)
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let offset = self.offset;
        for axis in (0..self.shape.len()).rev() {
            self.position[axis] += 1;
            if self.position[axis] < self.shape[axis] {
                self.offset += self.strides[axis];
                break;
            }
            self.offset -= self.strides[axis] * (self.shape[axis] - 1);
            self.position[axis] = 0;
        }
        Some(offset)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_in_broadcast_order() {
        let offsets: Vec<usize> = Walk::broadcast(&[3, 1], &[2, 3, 2]).collect();
        assert_eq!(offsets, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
        assert_eq!(Walk::broadcast(&[], &[]).collect::<Vec<_>>(), [0]);
        assert_eq!(Walk::broadcast(&[1], &[0]).count(), 0);
    }

    #[test]
    fn integers_of_32_bits_wrap() {
        let tensor = Tensor::int(Element::I32, vec![1], vec![i64::from(i32::MAX) + 1]);
        assert_eq!(tensor.as_int(), Some(&[i64::from(i32::MIN)][..]));
    }
}
