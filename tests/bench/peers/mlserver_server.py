"""MLServer with ONNX Runtime: V2 over gRPC (raw). One process with a thread of ONNX Runtime a core: its pool of worker
processes does not start on the uvloop that it installs, and adds a copy of every request."""

import json
import os
import pathlib
import sys
import tempfile

import arguments

FOLDER = pathlib.Path(__file__).resolve().parent


def main() -> None:
    given = arguments.read()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mlserver-"))
    settings = {
        "debug": False, "host": "127.0.0.1", "http_port": given.http, "grpc_port": given.grpc, "metrics_endpoint": None,
        "parallel_workers": 0, "grpc_max_message_length": 64 << 20,
        "use_structured_logging": False,
    }  # fmt: skip
    model = {
        "name": "ranker",
        "implementation": "mlserver_model.Ranker",
        "parameters": {"uri": given.model, "extra": {"threads": given.cores}},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    os.environ["PYTHONPATH"] = str(FOLDER)
    os.execv(pathlib.Path(sys.executable).parent / "mlserver", ["mlserver", "start", str(folder)])


if __name__ == "__main__":
    main()
