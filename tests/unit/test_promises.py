"""README's promises: each names the test that keeps it, and every one of these exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("## What you can rely on\n", 1)[1].split("\n## ", 1)[0]


def test_every_test_that_is_named_exists() -> None:
    named = _TEST.findall(_section())
    assert len(named) > 15
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_every_paragraph_of_promises_names_a_test() -> None:
    for paragraph in _section().split("\n\n"):
        if paragraph.startswith("**"):
            assert _TEST.search(paragraph), paragraph
