"""Models from the disk, from S3 and from web servers; and every reason for which one cannot be served."""

import json

import pytest
import requests
from conftest import digest_of, make_model


def s3(store) -> dict:
    return {
        "AWS_ENDPOINT_URL": store.url, "AWS_ALLOW_HTTP": "true", "AWS_SKIP_SIGNATURE": "true", "AWS_REGION": "us-east-1"
    }  # fmt: skip


def fails(runtime, reason: str, *named: str):
    failure = runtime.failure()
    assert failure["reason"] == reason, failure
    for text in named:
        assert text in failure["message"]


def test_from_s3_unsigned_with_digest_and_again_from_the_cache(start, store, ranker):
    digest = digest_of(ranker / "manifest.json")
    runtime = start("s3://models/ranker", "--model-digest", digest, environment=s3(store))
    assert {authorization for _, authorization in store.calls} == {None}
    assert runtime.stop() == 0
    calls = len(store.calls)
    start("s3://models/ranker", "--model-digest", digest, environment=s3(store))
    assert len(store.calls) == calls


def test_from_a_web_server(start, store, ranker):
    start(f"{store.url}/models/ranker/", environment={"AWS_ALLOW_HTTP": "true"})


def test_a_single_file(start, store, ranker):
    digest = digest_of(ranker / "model.onnx")
    uri = f"{store.url}/models/ranker/model.onnx"
    flags = ["--device", "cpu", "--model-digest", digest]
    start(uri, *flags, environment={"AWS_ALLOW_HTTP": "true"})


def test_transient_faults_are_retried(start, store):
    store.faults = [503, 500, None, "cut", 503]
    start("s3://models/ranker", environment=s3(store))
    assert not store.faults


def test_plain_http_needs_leave(start, store):
    fails(start(f"{store.url}/models/ranker", wait=False), "ModelUnreachable", "AWS_ALLOW_HTTP")


def test_missing_model(start, store, tmp_path):
    fails(start("s3://models/other", wait=False, environment=s3(store)), "ModelNotFound", "s3://models/other")
    fails(start((tmp_path / "nowhere").as_uri(), wait=False), "ModelNotFound", "manifest.json")
    fails(start((tmp_path / "nowhere.onnx").as_uri(), wait=False), "ModelNotFound")


def test_access_denied(start, store):
    store.faults = [403]
    fails(start("s3://models/ranker", wait=False, environment=s3(store)), "ModelUnreachable", "access denied")


def test_unreachable_after_thirty_seconds(start, store):
    environment = s3(store) | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    runtime = start("s3://models/ranker", wait=False, environment=environment)
    # Alive, and not ready, while it tries.
    assert requests.get(f"{store.url}/none", timeout=5).status_code == 404
    fails(runtime, "ModelUnreachable", "127.0.0.1:1")


def test_wrong_digests(start, copy):
    wrong = "sha256:" + "0" * 64
    fails(start(copy.as_uri(), "--model-digest", wrong, wait=False), "DigestMismatch", "manifest.json")
    model = (copy / "model.onnx").as_uri()
    fails(start(model, "--model-digest", wrong, wait=False), "DigestMismatch", wrong)
    content = bytearray((copy / "model.onnx").read_bytes())
    content[1000] ^= 1
    (copy / "model.onnx").write_bytes(content)
    fails(start(copy.as_uri(), wait=False), "DigestMismatch", "model.onnx")
    (copy / "model.onnx").write_bytes(content[:-1])
    fails(start(copy.as_uri(), wait=False), "DigestMismatch", "model.onnx")


def test_corrupt_model(start, tmp_path):
    fails(start(make_model(tmp_path / "bad", "--corrupt").as_uri(), wait=False), "ModelInvalid", "model.onnx")


def test_no_gpu_provider(start, tmp_path, ranker):
    folder = make_model(tmp_path / "gpu", "--device", "gpu")
    fails(start(folder.as_uri(), wait=False), "NoGpuProvider", "device: cpu")
    fails(start((ranker / "model.onnx").as_uri(), wait=False), "NoGpuProvider")


def replace(folder, name: str, text: str):
    import make_small_ranker

    (folder / name).write_text(text)
    make_small_ranker.write_manifest(folder)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("device: cpu\nmaxBatchsize: 4\n", "maxBatchsize"),
        ("device: tpu\n", "tpu"),
        ("device: cpu\ninputs: {sprase: {}}\n", "sprase"),
        ("device: [\n", "config.yaml"),
    ],
)
def test_bad_configuration(start, copy, text, named):
    replace(copy, "config.yaml", text)
    fails(start(copy.as_uri(), wait=False), "ConfigInvalid", named)


def test_paths_stay_in_the_folder(start, copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = {"digest": digest_of(secret), "size": 6}
    manifest["files"]["../secret"] = entry
    (copy / "manifest.json").write_text(json.dumps(manifest))
    fails(start(copy.as_uri(), wait=False), "ModelInvalid", "../secret")
    del manifest["files"]["../secret"]
    (copy / "link").symlink_to(secret)
    manifest["files"]["link"] = entry
    (copy / "manifest.json").write_text(json.dumps(manifest))
    fails(start(copy.as_uri(), wait=False), "ModelInvalid", "link")


def test_a_sample_with_another_answer(start, copy):
    name = "samples/one.response.json"
    answer = json.loads((copy / name).read_text())
    answer["outputs"][0]["data"][0] += 0.01
    replace(copy, name, json.dumps(answer))
    fails(start(copy.as_uri(), wait=False), "ModelInvalid", "score", "one")
