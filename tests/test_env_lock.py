"""environment.lock: the GPU environment has CUDA and the versions of requirements.lock."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / name).read_text(), re.MULTILINE))


def test_gpu_environment_has_the_same_versions_and_cuda():
    locked, plain = pins("environment.lock"), pins("requirements.lock")
    assert {name: locked.get(name) for name in plain} == plain
    assert {"jax-cuda12-plugin", "nvidia-cudnn-cu12", "nvidia-cublas-cu12"} <= {*locked}
    for package in re.split(
        r"^(?=[\w.-]+==)", (REPOSITORY / "environment.lock").read_text(), flags=re.M
    )[1:]:
        assert "--hash=sha256:" in package


def test_it_answers_what_environment_yml_asks_for():
    asked = (REPOSITORY / "environment.yml").read_text()
    recipe = (REPOSITORY / "environment.lock").read_text().splitlines()[1]
    for requirement in re.findall(r"- (\S+\[\S+)", asked):
        assert requirement in recipe
