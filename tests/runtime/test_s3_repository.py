"""A repository in object storage, as the simulated AWS account has it: listed page by page, loaded, and looked at again."""

import shutil
import sys

import pytest
import scaled
from conftest import REPOSITORY, wait_until
from test_load import s3
from test_repository import models, repository, right, states  # noqa: F401: `models` is a fixture

sys.path.append(str(REPOSITORY / "tests" / "aws-sim" / "boto3"))

import awssim  # noqa: E402

# A page of ListObjectsV2 has 1,000.
MORE_THAN_A_PAGE = 1100


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    root = tmp_path_factory.mktemp("s3")
    with awssim.start(awssim.binary(), root, ["--s3-root", str(root)]) as account:
        yield account, root


@pytest.fixture
def bucket(account, models):  # noqa: F811
    """The repository lies beneath `ranking/` of the bucket."""
    sim, root = account
    shutil.rmtree(root / "models", ignore_errors=True)
    shutil.copytree(models, root / "models" / "ranking")
    (root / "models" / "elsewhere").mkdir()
    scaled.write(root / "models" / "elsewhere" / "other", 13.0)
    return sim, root / "models" / "ranking"


def listed(sim, since: int) -> list[dict]:
    return [entry for entry in sim.journal(since)["entries"] if entry["action"] == "ListObjectsV2"]


def test_models_of_a_bucket_are_listed_and_served(start, bucket):
    sim, root = bucket
    # Names that begin with a dot are no models, and come first.
    (root / ".old").mkdir()
    for number in range(MORE_THAN_A_PAGE):
        (root / ".old" / f"{number:04}").touch()
    since = sim.mark()
    runtime = repository(start, "s3://models/ranking", environment=s3(sim))
    right(runtime, "own", 2.0)
    right(runtime, "plain", 3.0)
    right(runtime, "triton/versions/1", 5.0)
    right(runtime, "triton", 7.0)
    assert set(states(runtime).values()) == {"READY"}
    assert {name for name, _ in states(runtime)} == {"own", "plain", "triton"}
    # Two pages of the repository, and one of each model at least.
    assert len(listed(sim, since)) >= 5
    assert not any(entry["denied"] for entry in sim.journal(since)["entries"])


def test_what_changes_in_the_bucket_is_loaded(start, bucket):
    sim, root = bucket
    runtime = repository(start, "s3://models/ranking", "--reload-interval", "200ms", environment=s3(sim))
    right(runtime, "plain", 3.0)
    scaled.write(root / "plain", 4.0, manifest=False)

    def changed():
        body = scaled.request(3, 1)
        return scaled.scores(runtime.infer(body, "plain")) == scaled.expected(body, 4.0)

    wait_until(changed)
    right(runtime, "own", 2.0)
    shutil.rmtree(root / "own")
    answer = runtime.load("own")
    assert answer.status_code == 404 and "s3://models/ranking" in answer.text
    # What is served stays.
    right(runtime, "own", 2.0)


def test_a_prefix_without_models_is_named(start, bucket):
    sim, _ = bucket
    runtime = repository(start, "s3://models/nothing", wait=False, environment=s3(sim))
    failure = runtime.failure()
    assert failure["reason"] == "ModelNotFound" and "s3://models/nothing has no folders" in failure["message"]
