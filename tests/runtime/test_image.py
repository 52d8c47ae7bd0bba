"""The image definition, as far as it can be checked without a container engine."""

import re
import shlex
import subprocess

import pytest
from conftest import REPOSITORY, binary

FOLDER = REPOSITORY / "inference-runtime"


def instructions() -> list[tuple[str, list[str]]]:
    """Keyword and words of each instruction; continued lines are one."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split()[0], shlex.split(line)[1:]) for line in lines]


def stages() -> dict[str, list[tuple[str, list[str]]]]:
    """Instructions by stage; the last one has no name."""
    found, name = {}, "arguments"
    for keyword, words in instructions():
        if keyword == "FROM":
            name = words[2] if len(words) == 3 and words[1] == "AS" else ""
        found.setdefault(name, []).append((keyword, words))
    return found


def all_of(stage: list, keyword: str) -> list[list[str]]:
    return [words for found, words in stage if found == keyword]


@pytest.fixture(scope="module")
def help_text() -> str:
    return subprocess.run([binary(), "serve", "--help"], check=True, capture_output=True, text=True).stdout


def default(help_text: str, variable: str) -> str:
    return re.search(rf"\[env: {variable}=.*?\]\s*\[default: (.*?)\]", help_text, re.DOTALL).group(1)


def test_stages_lead_to_the_last_one():
    found = stages()
    assert list(found) == ["arguments", "build", "onnxruntime-without", "onnxruntime-with", "libraries", ""]
    arguments = dict(words[0].split("=", 1) for words in all_of(found["arguments"], "ARG"))
    assert f"onnxruntime-{arguments['ONNXRUNTIME']}" in found
    for name, stage in found.items():
        for words in all_of(stage, "COPY"):
            source = [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
            assert all(name in found for name in source) and (source or name == "build")
    # The shared folder of the two variants is made by both.
    for name in ["build", "onnxruntime-with"]:
        assert "/out/libraries" in " ".join(all_of(found[name], "RUN")[0])


def test_the_last_stage_is_what_the_flags_expect(help_text):
    last = stages()[""]
    ports = [default(help_text, f"PINNACE_{name}LISTEN").rsplit(":", 1)[1] for name in ["", "GRPC_", "ADMIN_"]]
    assert all_of(last, "EXPOSE") == [ports]
    cache = default(help_text, "PINNACE_CACHE_DIR")
    assert all_of(last, "VOLUME") == [[cache]]
    copies = {words[-1]: words for words in all_of(last, "COPY")}
    assert "--chown=65532:65532" in copies[cache]
    # Where the runtime looks for ONNX Runtime.
    assert "`/usr/local/lib`" in (REPOSITORY / "docs" / "reference" / "runtime.md").read_text() and "/usr/local/lib/" in copies
    assert all_of(last, "USER") == [["65532:65532"]]
    ((entry,),) = ([word.strip("[],") for word in words] for words in all_of(last, "ENTRYPOINT"))
    assert entry in copies and copies[entry][-2] == "/out/pinnace-runtime"
    assert not all_of(last, "HEALTHCHECK") and not all_of(last, "RUN")
    assert all(f"org.opencontainers.image.{name}" in str(all_of(last, "LABEL")) for name in ["title", "licenses", "revision"])


def test_what_is_pinned_is_what_is_tested():
    arguments = dict(words[0].split("=", 1) for keyword, words in instructions() if keyword == "ARG" and "=" in words[0])
    toolchain = re.search(r'channel = "(.*?)"', (REPOSITORY / "rust-toolchain.toml").read_text()).group(1)
    assert f"rust:{toolchain}-" in arguments["RUST_IMAGE"]
    requirements = (REPOSITORY / "tests" / "requirements.txt").read_text()
    assert f"onnxruntime=={arguments['ONNXRUNTIME_VERSION']}\n" in requirements
    assert arguments["ONNXRUNTIME_SHA256"] in (REPOSITORY / "tests" / "tools" / "images").read_text()
    assert arguments["VERSION"] == re.search(r'version = "(.*?)"', (REPOSITORY / "Cargo.toml").read_text()).group(1)


def test_the_build_sees_the_whole_workspace():
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    members = re.search(r"members = \[(.*?)\]", (REPOSITORY / "Cargo.toml").read_text(), re.DOTALL).group(1)
    for member in re.findall(r'"(.*?)"', members):
        assert (REPOSITORY / member / "Cargo.toml").is_file() and member.split("/")[0] not in ignored
    assert "package inference-runtime" in " ".join(all_of(stages()["build"], "RUN")[0]).replace("--", "")


def test_the_reference_says_how():
    text = (REPOSITORY / "docs" / "reference" / "runtime.md").read_text()
    for said in ["docker build -f inference-runtime/Dockerfile", "ONNXRUNTIME=with", "docker run"]:
        assert said in text
