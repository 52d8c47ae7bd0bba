//! What a plan says of itself.

use super::*;

#[test]
fn inspect_says_what_runs_how_often_and_what_it_costs() {
    let loaded = loaded("wide-and-deep.torchscript-17");
    let plan = &loaded.compiled[0].once_plans[0];
    assert_eq!(plan.instruction_set(), InstructionSet::Portable);
    expect_test::expect![[r#"
        Request  Gather           [N, 4, 1]        gather               0 /wide/table/Gather
        Pair     Gather           [N, 6, 1]        gather               0 /wide/table/Gather
        Request  Gather           [N, 12, 1]       gather               0 /wide/table/Gather
        Pair     Gather           [N, 4, 1]        gather               0 /wide/table/Gather
        Request  ReduceSum        [N, 1]           reduce               4 /ReduceSum
        Request  ReduceSum        [N, 1]           reduce              12 /ReduceSum
        Request  Add              [N, 1]           elementwise          1 /ReduceSum
        Pair     ReduceSum        [N, 1]           reduce               6 /ReduceSum
        Pair     Add              [N, 1]           elementwise          1 /ReduceSum
        Pair     ReduceSum        [N, 1]           reduce               4 /ReduceSum
        Pair     Add              [N, 1]           elementwise          1 /ReduceSum
        Request  Abs              [N, 13]          elementwise         13 /Abs
        Request  Add              [N, 13]          elementwise         13 /Add
        Request  Log              [N, 13]          elementwise         13 /Log
        Request  MatMul           [N, 1]           product             26 /wide_dense/Gemm
        Pair     Add              [N, 1]           elementwise          1 /Add_1
        Request  Gather           [N, 4, 8]        gather               0 /embedding/table/Gather
        Pair     Gather           [N, 6, 8]        gather               0 /embedding/table/Gather
        Request  Gather           [N, 12, 8]       gather               0 /embedding/table/Gather
        Pair     Gather           [N, 4, 8]        gather               0 /embedding/table/Gather
        Request  Copy             [N, 45]          copy 1               0 joined
        Request  MatMul           [N, 32]          product           2880 /deep/deep.0/Gemm
        Request  MatMul           [N, 32]          product           6144 /deep/deep.0/Gemm
        Pair     MatMul           [N, 32]          product           3072 /deep/deep.0/Gemm
        Pair     MatMul           [N, 32]          product+relu      2048 /deep/deep.1/Relu
        Pair     MatMul           [N, 16]          product+relu      1024 /deep/deep.3/Relu
        Pair     MatMul           [N, 1]           product             32 /deep/deep.4/Gemm
        Pair     Add              [N, 1]           elementwise          1 /Add_2
        Pair     Sigmoid          [N, 1]           elementwise          1 /Sigmoid
        portable, f32: 9106 floating-point operations a request, 6191 a pair, 240 pairs at a time
    "#]]
    .assert_eq(&plan.describe());
    let cost = plan.cost();
    assert!(cost.request > 0 && cost.pair < loaded.compiled[0].plans[0].cost().pair);
}

#[test]
fn inspect_says_what_is_rounded_to_bf16_and_where() {
    let loaded = loaded("wide-and-deep.torchscript-17");
    expect_test::expect![[r#"
        Request  Gather           [N, 4, 1]        gather               0 /wide/table/Gather
        Pair     Gather           [N, 6, 1]        gather               0 /wide/table/Gather
        Request  Gather           [N, 12, 1]       gather               0 /wide/table/Gather
        Pair     Gather           [N, 4, 1]        gather               0 /wide/table/Gather
        Request  ReduceSum        [N, 1]           reduce               4 /ReduceSum
        Request  ReduceSum        [N, 1]           reduce              12 /ReduceSum
        Request  Add              [N, 1]           elementwise          1 /ReduceSum
        Pair     ReduceSum        [N, 1]           reduce               6 /ReduceSum
        Pair     Add              [N, 1]           elementwise          1 /ReduceSum
        Pair     ReduceSum        [N, 1]           reduce               4 /ReduceSum
        Pair     Add              [N, 1]           elementwise          1 /ReduceSum
        Request  Abs              [N, 13]          elementwise         13 /Abs
        Request  Add              [N, 13]          elementwise         13 /Add
        Request  Log              [N, 13]          elementwise         13 /Log
        Request  Round            [N, 13]          round 1              0 /Log
        Request  MatMul           [N, 1]           bf16                26 /wide_dense/Gemm
        Pair     Add              [N, 1]           elementwise          1 /Add_1
        Request  Gather           [N, 4, 8]        gather bf16          0 /embedding/table/Gather
        Pair     Gather           [N, 6, 8]        gather bf16          0 /embedding/table/Gather
        Request  Gather           [N, 12, 8]       gather bf16          0 /embedding/table/Gather
        Pair     Gather           [N, 4, 8]        gather bf16          0 /embedding/table/Gather
        Request  Round            [N, 96]          round 1              0 /Reshape
        Request  MatMul           [N, 32]          bf16              9024 /deep/deep.0/Gemm
        Pair     MatMul           [N, 32]          bf16+relu+round   5120 /deep/deep.1/Relu
        Pair     MatMul           [N, 16]          bf16+relu+round   1024 /deep/deep.3/Relu
        Pair     MatMul           [N, 1]           bf16                32 /deep/deep.4/Gemm
        Pair     Add              [N, 1]           elementwise          1 /Add_2
        Pair     Sigmoid          [N, 1]           elementwise          1 /Sigmoid
        portable, bf16: 9106 floating-point operations a request, 6191 a pair, 240 pairs at a time
    "#]]
    .assert_eq(&loaded.compiled[1].once_plans[0].describe());
}
