"""The programs in examples/, run as a reader would run them; what they print is what NumPy says."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"


def pool_lines() -> list[str]:
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(100_000, 10))
    total = round(values.sum())
    return [f"totals of 8 parts, and of the whole: {total} {total}", "mean 0.000, standard deviation 1.000"]


def executor_lines() -> list[str]:
    image = np.random.default_rng(0).integers(0, 256, size=(400, 300)).astype(float)
    padded = np.concatenate([image[:1], image, image[-1:]])
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    before, after = (np.abs(np.diff(pixels, axis=0)).mean() for pixels in (image, smooth))
    return [
        "rows done: [(0, 100), (100, 200), (200, 300), (300, 400)]",
        f"roughness before {before:.2f}, after {after:.2f}",
    ]


def joblib_lines() -> list[str]:
    return ["other processes wrote: True all of it: True", f"pi is about {np.pi:.2f}"]


def loader_lines() -> list[str]:
    return ["rows seen: 6000", "weights: [2.0, -3.0, 0.5]"]


EXPECTED: dict[str, Callable[[], list[str]]] = {
    "pool": pool_lines,
    "executor": executor_lines,
    "with_joblib": joblib_lines,
    "data_loader": loader_lines,
}


def printed(name: str) -> list[str]:
    return run_python((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"), timeout=60).stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_prints_what_numpy_says(name: str) -> None:
    if name == "data_loader" and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is installed where it has a small CPU build: on Python 3.11")
    assert printed(name) == EXPECTED[name]()


@pytest.mark.slow
def test_the_story_is_told_to_its_end() -> None:
    lines = printed("story")
    assert lines[0] == repr(np.ones(50_000_000))
    assert "4 processes added 40000" in lines
    assert lines[-1] == f"by name: {np.array([8.0, 3.0, 3.0])!r}"


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*EXPECTED, "story"}
