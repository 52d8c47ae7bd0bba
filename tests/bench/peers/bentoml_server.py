"""BentoML with ONNX Runtime, one worker a core. Its own typed endpoints print and parse every number, so the service
mounts a plain ASGI route, which takes the same V2 bytes as the others."""

import os
import pathlib
import sys

import arguments

FOLDER = pathlib.Path(__file__).resolve().parent

if __name__ == "__main__":
    given = arguments.read()
    os.environ |= {"BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(FOLDER)}
    bentoml = pathlib.Path(sys.executable).parent / "bentoml"
    command = ["bentoml", "serve", "bentoml_service:Ranker", "--working-dir", str(FOLDER), "--host", "127.0.0.1"]
    command += ["--port", str(given.http), "--api-workers", str(given.cores)]
    os.execv(bentoml, command)
