//! The corpus as tests read it.
#![allow(dead_code)] // each test takes what it needs
#![allow(clippy::unwrap_used)]

pub mod bf16;

use std::path::{Path, PathBuf};

use rank::onnx::NoExternalData;
use rank::pass::hoist::Once;
use rank::tensor::{Element, Tensor};
use rank::{Model, parse_once};
use serde_json::Value;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

pub fn models() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()?
                .strip_suffix(".onnx")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

pub fn content(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.onnx"))).unwrap()
}

pub fn load(name: &str) -> Model {
    Model::load(&content(name), &NoExternalData).unwrap_or_else(|refusal| panic!("{name}: {refusal}"))
}

pub fn answers(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap()).unwrap()
}

pub fn tensors(answers: &Value, key: &str) -> Vec<(String, Tensor)> {
    let tensor = |value: &Value| {
        let shape: Vec<usize> = serde_json::from_value(value["shape"].clone()).unwrap();
        let data = &value["data"];
        let tensor = match value["datatype"].as_str().unwrap() {
            "FP32" => Tensor::f32(shape, serde_json::from_value(data.clone()).unwrap()),
            "INT64" => Tensor::int(Element::I64, shape, serde_json::from_value(data.clone()).unwrap()),
            other => panic!("datatype {other}"),
        };
        (value["name"].as_str().unwrap().to_owned(), tensor)
    };
    answers[key].as_array().unwrap().iter().map(tensor).collect()
}

/// Inputs in the model's order.
pub fn inputs(model: &Model, answers: &Value) -> Vec<Tensor> {
    let named = tensors(answers, "inputs");
    let find = |name: &str| named.iter().find(|(own, _)| own == name).unwrap().1.clone();
    model
        .graph
        .inputs
        .iter()
        .map(|id| find(&model.graph.value(*id).name))
        .collect()
}

/// Rows of a tensor, in any order, any number of times.
pub fn rows(tensor: &Tensor, picked: &[usize]) -> Tensor {
    let width: usize = tensor.shape[1..].iter().product();
    let mut shape = tensor.shape.clone();
    shape[0] = picked.len();
    tensor.pick(
        shape,
        picked.iter().flat_map(|row| row * width..(row + 1) * width),
    )
}

/// Columns of a tensor of two axes.
pub fn columns(tensor: &Tensor, picked: &[usize]) -> Tensor {
    let width = tensor.shape[1];
    let indices = (0..tensor.shape[0]).flat_map(|row| picked.iter().map(move |column| row * width + column));
    tensor.pick(vec![tensor.shape[0], picked.len()], indices)
}

/// Bits, so that NaN equals NaN and 0 is not -0.
pub fn bits(tensors: &[Tensor]) -> Vec<Vec<u32>> {
    let of = |tensor: &Tensor| {
        tensor
            .as_f32()
            .map_or(Vec::new(), |values| values.iter().map(|v| v.to_bits()).collect())
    };
    tensors.iter().map(of).collect()
}

/// What belongs to the user in each family of models.
const USERS: &[(&str, &[&str])] = &[
    ("dlrm.", &["dense", "sparse[0:20]"]),
    ("dlrm-dcnv2.", &["dense", "sparse[0:20]"]),
    ("dcn.", &["dense", "sparse[0:20]"]),
    ("wide-and-deep.", &["dense", "sparse[0:4,10:22]"]),
    ("deepfm.", &["sparse[3:20]"]),
    ("xdeepfm.", &["sparse[0:20]"]),
    ("two-tower.", &["dense", "user"]),
    ("mmoe.", &["dense", "sparse[0:20]"]),
    ("din.", &["history"]),
    ("dien.", &["history"]),
    ("sasrec.", &["history"]),
    ("bag-weighted.", &["ids"]),
];

pub fn users(name: &str) -> Option<Vec<(String, Once)>> {
    let (_, declared) = USERS.iter().find(|(prefix, _)| name.starts_with(prefix))?;
    Some(parse_once(declared).unwrap())
}

/// Inputs of the hoisted model: the user's and the pairs'.
pub fn hoisted_inputs(
    model: &Model,
    once: &[(String, Once)],
    user: &[Tensor],
    pairs: &[Tensor],
) -> Vec<Tensor> {
    let mut split = Vec::new();
    for (at, id) in model.graph.inputs.iter().enumerate() {
        match once
            .iter()
            .find(|(name, _)| *name == model.graph.value(*id).name)
            .map(|(_, once)| once)
        {
            None => split.push(pairs[at].clone()),
            Some(Once::Whole) => split.push(user[at].clone()),
            Some(Once::Columns(ranges)) => {
                let inside = |column: &usize| {
                    ranges
                        .iter()
                        .any(|range| (range.start..range.end).contains(column))
                };
                let (own, other): (Vec<usize>, Vec<usize>) = (0..pairs[at].shape[1]).partition(inside);
                split.extend([columns(&user[at], &own), columns(&pairs[at], &other)]);
            }
        }
    }
    split
}
