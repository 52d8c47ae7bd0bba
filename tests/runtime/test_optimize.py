"""Rewritten models answer as the originals do, both in ONNX Runtime."""

import sys

from conftest import REPOSITORY, binary

sys.path.insert(0, str(REPOSITORY / "inference-runtime" / "rank" / "tests"))


def test_the_corpus_rewritten_answers_the_same(capsys):
    import check_optimized

    check_optimized.check(binary())
    assert int(capsys.readouterr().out.split()[0]) >= 50
