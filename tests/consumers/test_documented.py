"""The tables of ``docs/consumers.md`` say what is measured here."""

import importlib.util
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.consumers import copies
from tests.consumers.conftest import Maker
from tests.consumers.copies import CASES, COLUMNS, KINDS, ROWS, ZERO_COPY, Case
from tests.consumers.libraries import NO_TORCH, assert_equal
from tests.support.remote import MAPPED, managed

PAGE = Path(__file__).parents[2] / "docs" / "consumers.md"
HAS_TORCH = importlib.util.find_spec("torch") is not None
Outcomes = dict[tuple[Case, str], str]

# Where a library asks for np.ndarray by type, and what it does with a hosted array instead: an exception, or "differs".
TYPE_ASKED = {
    "pd.unique(k)": "TypeError",
    "pd.factorize(k)[0]": "TypeError",
    "frame.groupby(k).sum()": "TypeError",
    "frame.set_index(k)": "TypeError",
    "frame[m]": "KeyError",
    "frame.loc[m]": "KeyError",
    "frame.iloc[m]": "differs",
    "frame + a": "ValueError",
    "frame > a": "ValueError",
    "pd.DataFrame(records)": "differs",
    "pa.Tensor.from_numpy(a)": "ArrowTypeError",
    "pa.array([k, k])": "ArrowInvalid",
    "pa.array(k, mask=m)": "ValueError",
    "scipy.sparse.linalg.aslinearoperator(a).matvec(np.ones(3))": "TypeError",
    "torch.from_numpy(k)": "TypeError",
}
# Where a newer release than that of the table no longer asks.
TAKEN_SINCE = frozenset(["scipy.sparse.linalg.aslinearoperator(a).matvec(np.ones(3))"])


@pytest.fixture(scope="module")
def hosted() -> Iterator[Maker]:
    """Mapped arrays only: over TCP everybody copies."""
    with managed(MAPPED) as manager:
        yield manager.array


@pytest.fixture(scope="module")
def measured(hosted: Maker) -> Outcomes:
    """Measured in a process of its own, which is sent the proxies."""
    small = hosted(np.ones((20, COLUMNS)))
    large = hosted(np.ones((ROWS, COLUMNS)))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        outcomes = executor.submit(copies.measure, large, small, HAS_TORCH).result(timeout=100)
    return outcomes


def rows(*, columns: int) -> dict[str, list[str]]:
    """The rows of the page's table of so many columns: call -> the other cells, without the remarks."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns and "`" in line:
            call = next(cell for cell in cells if cell.startswith("`")).strip("`")
            found[call] = cells
    return found


@pytest.mark.watchdog(120)
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.call)
def test_nobody_copies_what_would_not_be_copied_of_an_ndarray(measured: Outcomes, case: Case) -> None:
    if case.library == "torch" and not HAS_TORCH:
        pytest.skip(NO_TORCH)
    outcomes = [measured[case, kind] for kind in KINDS]
    if outcomes[0] == ZERO_COPY:
        assert outcomes == [ZERO_COPY] * 3
    expected = [case.library, f"`{case.call}`", *outcomes]
    assert rows(columns=6).get(case.call, [])[:5] == expected, f"the page should say: | {' | '.join(expected)} | ... |"


def test_every_call_of_the_page_is_measured() -> None:
    assert list(rows(columns=6)) == [case.call for case in CASES]
    assert {call: cells[1] for call, cells in rows(columns=3).items()} == TYPE_ASKED


@pytest.fixture(scope="module")
def arguments(hosted: Maker) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names in those calls, hosted and plain."""
    records = np.array([(1, 2.0), (3, 4.0)], dtype=[("p", "i4"), ("q", "f8")])
    plain = {"k": np.arange(6) % 3, "m": np.arange(6) > 2, "a": np.arange(18.0).reshape(6, 3), "records": records}
    return {name: hosted(values) for name, values in plain.items()}, plain


@pytest.mark.parametrize("call", TYPE_ASKED)
def test_where_the_type_is_asked_the_memory_is_given(arguments: Any, call: str) -> None:
    names = {"pd": "pandas", "pa": "pyarrow", "scipy": "scipy.sparse.linalg", "torch": "torch", "frame": "pandas"}
    alias = call.split(".")[0].split("[")[0].split(" ")[0]
    if alias == "torch" and not HAS_TORCH:
        pytest.skip(NO_TORCH)
    library = importlib.import_module(names[alias])
    namespace = {"np": np, alias: importlib.import_module("scipy") if alias == "scipy" else library}
    if alias == "frame":
        namespace["frame"] = library.DataFrame(np.arange(18.0).reshape(6, 3))
    hosted, plain = arguments
    expected = eval(call, {**namespace, **plain})
    memory = {name: np.asarray(a) if alias != "torch" else a.copy() for name, a in hosted.items()}
    assert_equal(eval(call, {**namespace, **memory}), expected)
    if TYPE_ASKED[call] == "differs":
        assert eval(call, {**namespace, **hosted}).shape != expected.shape
        return
    result, refusal = None, ""
    try:
        result = eval(call, {**namespace, **hosted})
    except Exception as error:  # which one it is, is what is compared
        refusal = type(error).__name__
    if refusal or call not in TAKEN_SINCE:
        assert refusal == TYPE_ASKED[call]
    else:
        assert_equal(result, expected)
