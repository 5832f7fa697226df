"""What may be the name of an array, and what may stand in its attributes."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayhost.core.attributes import MAX_ATTRIBUTE_BYTES, check_attributes
from arrayhost.core.names import MAX_NAME_BYTES, check_name

GOOD = [
    "prices",
    "a",
    "x" * 255,
    "2024-01",
    "open close",
    "köln",
    "株価",
    "Δt",
    "v1.2_final",
    "a:b",
    "Москва",
    "über.npy",
    "ΣΔ",
]
BAD = {
    "empty": "",
    "up": "..",
    "parent": "../x",
    "absolute": "/abs",
    "inside": "a/b",
    "backslash": "a\\b",
    "dot": ".",
    "hidden": ".prices",
    "option": "-rf",
    "home": "~",
    "nul": "a\0b",
    "newline": "a\nb",
    "escape": "a\x1b[31m",
    "delete": "a\x7f",
    "long": "x" * 256,
    "long-utf8": "é" * 128,
    "ten-kilobytes": "x" * 10_000,
    "space-before": " a",
    "space-after": "a ",
    "no-break-space": "a\u00a0b",
    "zero-width": "pri\u200bces",
    "right-to-left": "a\u202eb",
    "joiner": "a\u034fb",
    "filler": "\u3164",
    "blank": "\u2800",
    "variation": "a\ufe0f",
    "surrogate": "a\ud800",
    "fullwidth-slash": "a\uff0fb",
    "division-slash": "a\u2215b",
    "fraction-slash": "a\u2044b",
    "fullwidth-dots": "\uff0e\uff0e",
    "fullwidth": "\uff50rices",
    "ligature": "\ufb01le",
    "cyrillic-a": "p\u0430ypal",
    "greek-o": "pr\u03bfduct",
    "accent-first": "\u0301a",
}


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="array name") as caught:
        check_name(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [None, 3, b"prices", ("a",)])
def test_names_are_text(name: object) -> None:
    with pytest.raises(TypeError, match="named by text"):
        check_name(name)


def test_one_name_however_its_accents_are_typed() -> None:
    assert check_name(unicodedata.normalize("NFD", "köln")) == check_name("köln") == "köln"
    assert check_name("\u00b5m") == check_name("\u03bcm")


@given(st.text(max_size=60))
def test_what_passes_is_one_visible_file_name(text: str) -> None:
    try:
        name = check_name(text)
    except ValueError:
        return
    assert check_name(name) == name
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert name.isprintable()
    assert not set(name) & set("/\\\0")
    assert name not in (".", "..")
    assert unicodedata.normalize("NFKC", name) == name


def test_attributes_become_plain() -> None:
    values = {
        "unit": "EUR", "n": np.int64(3), "scale": np.float32(0.5), "axes": ("x", "y"), "nested": {"a": [None, True]},
        "edges": np.arange(3),
    }  # fmt: skip
    assert check_attributes(values) == {
        "unit": "EUR", "n": 3, "scale": 0.5, "axes": ["x", "y"], "nested": {"a": [None, True]}, "edges": [0, 1, 2],
    }  # fmt: skip
    assert type(check_attributes(values)["n"]) is int


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({3: "x"}, TypeError),
        ({"": 1}, ValueError),
        ({"a\n": 1}, ValueError),
        ({"k" * 256: 1}, ValueError),
        ({"x": float("nan")}, ValueError),
        ({"x": np.inf}, ValueError),
        ({"x": object()}, TypeError),
        ({"x": 1j}, TypeError),
        ({"x": b"bytes"}, TypeError),
        ({"x": {1: 2}}, TypeError),
        ({"x": "\ud800"}, ValueError),
        ({"x": "y" * MAX_ATTRIBUTE_BYTES}, ValueError),
    ],
)
def test_what_is_no_attribute(values: dict, error: type) -> None:
    with pytest.raises(error):
        check_attributes(values)


def test_nesting_has_an_end() -> None:
    deep: list = []
    for _ in range(50):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        check_attributes({"x": deep})
