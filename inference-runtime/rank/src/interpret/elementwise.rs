//! One element in, one out, broadcast as in ONNX.

use super::{EvalError, math};
use crate::ir::{Binary, Unary};
use crate::tensor::{Data, Element, Tensor, Walk};

pub fn unary(unary: Unary, x: &Tensor) -> Result<Tensor, EvalError> {
    let shape = x.shape.clone();
    match &x.data {
        Data::Bf16(_) => self::unary(unary, &x.clone().into_wide()),
        Data::Bool(values) => Ok(Tensor::bool(shape, values.iter().map(|value| !value).collect())),
        Data::Int(values) => {
            let function = match unary {
                Unary::Abs => i64::wrapping_abs,
                Unary::Neg => i64::wrapping_neg,
                _ => |value: i64| value.max(0),
            };
            Ok(Tensor::int(
                x.element,
                shape,
                values.iter().map(|value| function(*value)).collect(),
            ))
        }
        Data::F32(values) => {
            let map = |function: &dyn Fn(f32) -> f32| values.iter().map(|value| function(*value)).collect();
            let result = match unary {
                Unary::Abs => map(&f32::abs),
                Unary::Ceil => map(&f32::ceil),
                Unary::Elu { alpha } => map(&|x| if x < 0.0 { alpha * (math::exp(x) - 1.0) } else { x }),
                Unary::Erf => map(&math::erf),
                Unary::Exp => map(&math::exp),
                Unary::Floor => map(&f32::floor),
                Unary::Gelu { tanh } => map(&|x| math::gelu(x, tanh)),
                Unary::HardSigmoid { alpha, beta } => {
                    map(&|x| math::min(math::max(x.mul_add(alpha, beta), 0.0), 1.0))
                }
                Unary::LeakyRelu { alpha } => map(&|x| if x < 0.0 { alpha * x } else { x }),
                Unary::Log => map(&math::log),
                Unary::Neg => map(&|x| -x),
                Unary::Reciprocal => map(&|x| 1.0 / x),
                Unary::Relu => map(&math::relu),
                Unary::Sigmoid => map(&math::sigmoid),
                Unary::Softplus => map(&|x| math::relu(x) + math::log(1.0 + math::exp(-x.abs()))),
                Unary::Sqrt => map(&f32::sqrt),
                Unary::Tanh => map(&math::tanh),
                Unary::IsInf => {
                    return Ok(Tensor::bool(
                        shape,
                        values.iter().map(|x| x.is_infinite()).collect(),
                    ));
                }
                Unary::IsNan => return Ok(Tensor::bool(shape, values.iter().map(|x| x.is_nan()).collect())),
                Unary::Not => return Err(EvalError::element("Not", x.element)),
            };
            Ok(Tensor::f32(shape, result))
        }
    }
}

fn result_shape(inputs: &[&Tensor]) -> Vec<usize> {
    let rank = inputs.iter().map(|input| input.shape.len()).max().unwrap_or(0);
    let at = |axis: usize| {
        let sizes = inputs.iter().filter_map(|input| {
            (axis + input.shape.len())
                .checked_sub(rank)
                .map(|axis| input.shape[axis])
        });
        // 1 yields to any other size, 0 included.
        sizes.fold(1, |size, other| if size == 1 { other } else { size })
    };
    (0..rank).map(at).collect()
}

pub fn binary(binary: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor, EvalError> {
    let shape = result_shape(&[a, b]);
    let pairs = Walk::broadcast(&a.shape, &shape).zip(Walk::broadcast(&b.shape, &shape));
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => {
            let pairs = pairs.map(|(i, j)| (x[i], y[j]));
            if binary.is_predicate() {
                let values = pairs.map(|(x, y)| compare(binary, &x, &y)).collect();
                return Ok(Tensor::bool(shape, values));
            }
            Ok(Tensor::f32(
                shape,
                pairs.map(|(x, y)| float(binary, x, y)).collect(),
            ))
        }
        (Data::Int(x), Data::Int(y)) => {
            let pairs = pairs.map(|(i, j)| (x[i], y[j]));
            if binary.is_predicate() {
                let values = pairs.map(|(x, y)| compare(binary, &x, &y)).collect();
                return Ok(Tensor::bool(shape, values));
            }
            let values: Option<Vec<i64>> = pairs.map(|(x, y)| integer(binary, x, y)).collect();
            let values = values.ok_or(EvalError::DivisionByZero)?;
            Ok(Tensor::int(a.element, shape, values))
        }
        (Data::Bool(x), Data::Bool(y)) => {
            let values = pairs.map(|(i, j)| match binary {
                Binary::And => x[i] && y[j],
                Binary::Or => x[i] || y[j],
                Binary::Xor => x[i] != y[j],
                _ => x[i] == y[j],
            });
            Ok(Tensor::bool(shape, values.collect()))
        }
        _ => Err(EvalError::element(&format!("{binary:?}"), b.element)),
    }
}

fn compare<T: PartialOrd>(binary: Binary, x: &T, y: &T) -> bool {
    match binary {
        Binary::Greater => x > y,
        Binary::GreaterOrEqual => x >= y,
        Binary::Less => x < y,
        Binary::LessOrEqual => x <= y,
        _ => x == y,
    }
}

fn float(binary: Binary, x: f32, y: f32) -> f32 {
    match binary {
        Binary::Add => x + y,
        Binary::Sub => x - y,
        Binary::Mul => x * y,
        Binary::Div => x / y,
        Binary::Max => math::max(x, y),
        Binary::Min => math::min(x, y),
        Binary::Pow => math::pow(x, y),
        Binary::PRelu => {
            if x < 0.0 {
                x * y
            } else {
                x
            }
        }
        Binary::Fmod => x % y,
        _ => (x / y).floor().mul_add(-y, x),
    }
}

/// `None` for a division by zero.
fn integer(binary: Binary, x: i64, y: i64) -> Option<i64> {
    Some(match binary {
        Binary::Add => x.wrapping_add(y),
        Binary::Sub => x.wrapping_sub(y),
        Binary::Mul => x.wrapping_mul(y),
        Binary::Max => x.max(y),
        Binary::Min => x.min(y),
        Binary::Div if y != 0 => x.wrapping_div(y),
        Binary::Fmod if y != 0 => x.wrapping_rem(y),
        Binary::Mod if y != 0 => {
            let rest = x.wrapping_rem(y);
            if rest != 0 && (rest < 0) != (y < 0) {
                rest + y
            } else {
                rest
            }
        }
        _ => return None,
    })
}

pub fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor, EvalError> {
    let shape = result_shape(&[condition, a, b]);
    let flags = condition
        .as_bool()
        .ok_or_else(|| EvalError::element("Where", condition.element))?;
    let walks = Walk::broadcast(&condition.shape, &shape)
        .zip(Walk::broadcast(&a.shape, &shape).zip(Walk::broadcast(&b.shape, &shape)));
    let picks = walks.map(|(flag, (i, j))| (flags[flag], i, j));
    match (&a.data, &b.data) {
        (Data::F32(x), Data::F32(y)) => Ok(Tensor::f32(
            shape,
            picks.map(|(flag, i, j)| if flag { x[i] } else { y[j] }).collect(),
        )),
        (Data::Int(x), Data::Int(y)) => {
            let values = picks.map(|(flag, i, j)| if flag { x[i] } else { y[j] }).collect();
            Ok(Tensor::int(a.element, shape, values))
        }
        (Data::Bool(x), Data::Bool(y)) => Ok(Tensor::bool(
            shape,
            picks.map(|(flag, i, j)| if flag { x[i] } else { y[j] }).collect(),
        )),
        _ => Err(EvalError::element("Where", b.element)),
    }
}

pub fn cast(to: Element, x: &Tensor) -> Tensor {
    let shape = x.shape.clone();
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // the meaning of a cast
    match (&x.data, to) {
        (Data::Bf16(_), _) => cast(to, &x.clone().into_wide()),
        (Data::F32(values), Element::F32) => Tensor::f32(shape, values.clone()),
        (Data::F32(values), Element::Bool) => {
            Tensor::bool(shape, values.iter().map(|value| *value != 0.0).collect())
        }
        (Data::F32(values), _) => Tensor::int(to, shape, values.iter().map(|value| *value as i64).collect()),
        (Data::Int(values), Element::F32) => {
            Tensor::f32(shape, values.iter().map(|value| *value as f32).collect())
        }
        (Data::Int(values), Element::Bool) => {
            Tensor::bool(shape, values.iter().map(|value| *value != 0).collect())
        }
        (Data::Int(values), _) => Tensor::int(to, shape, values.clone()),
        (Data::Bool(values), Element::F32) => Tensor::f32(
            shape,
            values.iter().map(|value| f32::from(u8::from(*value))).collect(),
        ),
        (Data::Bool(values), Element::Bool) => Tensor::bool(shape, values.clone()),
        (Data::Bool(values), _) => {
            Tensor::int(to, shape, values.iter().map(|value| i64::from(*value)).collect())
        }
    }
}
