"""Rewritten models answer as the originals do, both in ONNX Runtime."""

import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "inference-runtime" / "rank" / "tests"))


def test_the_corpus_rewritten_answers_the_same(capsys):
    import check_optimized

    subprocess.run(["cargo", "build", "-q", "-p", "rank", "--example", "optimize"], cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", str(REPOSITORY / "target"))
    check_optimized.check(pathlib.Path(target) / "debug" / "examples" / "optimize")
    assert int(capsys.readouterr().out.split()[0]) >= 50
