use super::super::NoExternalData;
use super::super::proto::{AttributeProto, OperatorSetIdProto, TensorShapeProto, TypeProto};
use super::*;

fn input(name: &str, elem_type: i32, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = |size: &Option<i64>| tensor_shape_proto::Dimension {
        value: Some(match size {
            Some(size) => tensor_shape_proto::dimension::Value::DimValue(*size),
            None => tensor_shape_proto::dimension::Value::DimParam("batch".to_owned()),
        }),
    };
    let tensor = type_proto::Tensor {
        elem_type,
        shape: Some(TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("the_{operator}"),
        op_type: operator.to_owned(),
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

/// `x [N, 4]`, these nodes, and the output `y`.
fn model(nodes: Vec<NodeProto>) -> ModelProto {
    let output = ValueInfoProto {
        name: "y".to_owned(),
        ..ValueInfoProto::default()
    };
    ModelProto {
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            node: nodes,
            input: vec![input("x", 1, &[None, Some(4)])],
            output: vec![output],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn refusal(model: &ModelProto) -> String {
    match import(model, &NoExternalData) {
        Ok(graph) => panic!("taken: {graph:?}"),
        Err(refusal) => refusal.to_string(),
    }
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let nodes = vec![node("Unique", &["x"], "u"), node("Relu", &["u"], "y")];
    assert_eq!(
        refusal(&model(nodes)),
        "node \"the_Unique\" (Unique): this operator is not in rank's set"
    );
    let mut foreign = node("Gelu", &["x"], "y");
    foreign.domain = "com.microsoft".to_owned();
    assert_eq!(
        refusal(&model(vec![foreign])),
        "node \"the_Gelu\" (Gelu): operators of the domain \"com.microsoft\" are not in rank's set"
    );
}

#[test]
fn an_unknown_operator_that_no_output_needs_does_not_matter() {
    let nodes = vec![node("Unique", &["x"], "u"), node("Relu", &["x"], "y")];
    assert_eq!(import(&model(nodes), &NoExternalData).unwrap().nodes.len(), 1);
}

#[test]
fn what_does_not_fit_says_what() {
    let missing = model(vec![node("Relu", &["z"], "y")]);
    assert!(refusal(&missing).contains("(Relu): its input \"z\" is not made by any node before it"));
    let nothing = model(vec![node("Relu", &["x"], "z")]);
    assert_eq!(refusal(&nothing), "output \"y\": is made by no node");
    let mut old = model(vec![node("Relu", &["x"], "y")]);
    old.opset_import[0].version = 9;
    assert_eq!(
        refusal(&old),
        "the model is of opset 9; export it with opset 13 to 23"
    );
    let no_shape = model(vec![node("Reshape", &["x"], "y")]);
    assert!(refusal(&no_shape).contains("(Reshape): input 1 is missing"));
}

#[test]
fn inputs_must_be_tensors_of_known_shape_but_for_the_rows() {
    let with = |info: ValueInfoProto| {
        let mut model = model(vec![node("Relu", &["x"], "y")]);
        model.graph.as_mut().unwrap().input = vec![info];
        refusal(&model)
    };
    let length = with(input("x", 1, &[None, None]));
    assert_eq!(
        length,
        "input \"x\": axis 1 has no fixed size (\"batch\"); only the first (here \"batch\") may vary"
    );
    let doubles = with(input("x", 11, &[None, Some(4)]));
    assert!(
        doubles.contains("input \"x\": element type DOUBLE is not taken"),
        "{doubles}"
    );
    assert!(with(input("x", 1, &[Some(-3), Some(4)])).contains("axis 0 has the size -3"));
}

#[test]
fn a_branch_on_what_is_known_is_taken_away() {
    let branch = |operator: &str| GraphProto {
        node: vec![node(operator, &["x"], "inner")],
        output: vec![ValueInfoProto {
            name: "inner".to_owned(),
            ..ValueInfoProto::default()
        }],
        ..GraphProto::default()
    };
    let body = |name: &str, graph: GraphProto| AttributeProto {
        name: name.to_owned(),
        g: Some(graph),
        ..AttributeProto::default()
    };
    let mut choice = node("If", &["condition"], "y");
    choice.attribute = vec![
        body("then_branch", branch("Relu")),
        body("else_branch", branch("Unique")),
    ];
    let mut model = model(vec![choice]);
    let condition = constant::encode("condition", &Tensor::bool(Vec::new(), vec![true]));
    model.graph.as_mut().unwrap().initializer.push(condition);
    let graph = import(&model, &NoExternalData).unwrap();
    assert_eq!(graph.nodes[0].name, "the_Relu");
}
