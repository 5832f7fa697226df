"""What Python and other libraries ask of an array by special names."""

import copy
import math
import operator
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.base
import numpy as np
import pytest

from arrayhost import ArrayManager, HostedArray
from arrayhost.client.session import round_trips
from tests.support import assert_same, run_python

KINDS: dict[str, Callable[[HostedArray], HostedArray]] = {"mapped": lambda a: a, "on host": lambda a: a.on_host}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Callable[[HostedArray], HostedArray]:
    return KINDS[request.param]


def address(array: Any) -> int:
    return np.asarray(array).__array_interface__["data"][0]


# -- conversion -----------------------------------------------------------------------------------------------------


def test_array_follows_numpys_rules_for_dtype_and_copy(manager: ArrayManager) -> None:
    array = np.arange(6).reshape(2, 3)
    a = manager.array(array)
    assert address(np.asarray(a)) == address(np.asarray(a, copy=False)) == address(a.live)
    assert address(np.asarray(a, dtype=array.dtype)) == address(a.live)
    assert not np.asarray(a).flags.writeable
    for private in (np.array(a), np.asarray(a, copy=True), a.__array__(copy=True), np.asarray(a, "f4")):
        assert private.flags.writeable
        assert not np.shares_memory(private, a.live)
    assert_same(np.asarray(a, "f4"), array.astype("f4"))
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.asarray(a, "f4", copy=False)


CONVERSIONS = [bool, int, float, complex, operator.index, math.trunc, round, abs, len, hash, iter]


@pytest.mark.parametrize("value", [7, -2.5, 0, True, 3 - 4j], ids=repr)
@pytest.mark.parametrize("convert", CONVERSIONS)
def test_conversions(
    manager: ArrayManager, kind: Callable[[HostedArray], HostedArray], value: Any, convert: Callable[[Any], Any]
) -> None:
    for shape in ((), (1,), (2,)):
        array = np.full(shape, value)
        assert_same(observed(convert, kind(manager.array(array))), observed(convert, array))


def observed(convert: Callable[[Any], Any], array: Any) -> tuple[Any, list[type]]:
    """The result, or the error's type, and the warnings' types."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = convert(array)
        except Exception as error:
            result = type(error)
        if convert is iter and not isinstance(result, type):
            result = list(result)
    return result, [one.category for one in caught]


@pytest.mark.parametrize(
    "operate",
    [
        lambda x: 3 in x,
        lambda x: 99 in x,
        lambda x: x @ x.T,
        lambda x: [1, 2] @ x,
        lambda x: divmod(x, 2),
        lambda x: divmod(7, x + 1),
        lambda x: [row.tolist() for row in x],
        lambda x: next(reversed(x[0])),
        lambda x: operator.delitem(x, 0),
        lambda x: hash(x),
        lambda x: f"{x[0, 0]:.2f}",
        lambda x: bool(x),
    ],
)
def test_operators(
    manager: ArrayManager, kind: Callable[[HostedArray], HostedArray], operate: Callable[[Any], Any]
) -> None:
    array = np.arange(6.0).reshape(2, 3)
    hosted = kind(manager.array(array))
    try:
        expected = operate(array)
    except Exception as error:
        with pytest.raises(type(error), match=re.escape(str(error)[:12])):
            operate(hosted)
    else:
        assert_same(operate(hosted), expected)


def test_priority_over_ndarray(manager: ArrayManager) -> None:
    assert manager.ones(2).__array_priority__ > np.ones(2).__array_priority__


def test_namespace(manager: ArrayManager, kind: Callable[[HostedArray], HostedArray]) -> None:
    a = kind(manager.arange(3.0))
    assert a.__array_namespace__() is np
    assert a.__array_namespace__(api_version="2022.12").sum(a) == 3
    with pytest.raises(ValueError, match="is not supported"):
        a.__array_namespace__(api_version="1999.01")


# -- copies ---------------------------------------------------------------------------------------------------------


def test_pickles_are_handles_and_copies_are_ndarrays(
    manager: ArrayManager, kind: Callable[[HostedArray], HostedArray]
) -> None:
    array = np.arange(100_000.0)
    a = kind(manager.array(array))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(a[10:], protocol)
        assert len(data) < 600
        again = pickle.loads(data)
        assert type(again) is type(a)
        assert_same(again.copy(), array[10:])
    again[0] = -1
    assert a[10] == -1
    for private in (copy.copy(a), copy.deepcopy(a), copy.deepcopy({"a": a})["a"]):
        assert type(private) is np.ndarray
        private[0] = 5
        assert a[0] == 0


# -- DLPack ---------------------------------------------------------------------------------------------------------


def test_dlpack_exports_the_live_memory(manager: ArrayManager) -> None:
    a = manager.array(np.arange(6.0).reshape(2, 3))
    before = round_trips()
    shared = np.from_dlpack(a)
    assert round_trips() == before
    assert address(shared) == address(a.live)
    assert not shared.flags.writeable
    assert a.__dlpack_device__() == np.ones(1).__dlpack_device__()
    private = np.from_dlpack(a, copy=True)
    assert not np.shares_memory(private, a.live)
    a[0, 0] = 9
    assert shared[0, 0] == 9
    assert private[0, 0] == 0
    # As ndarray itself, for a consumer that knows nothing of read-only memory.
    with pytest.raises(BufferError, match="readonly"):
        a.__dlpack__()
    assert_same(np.from_dlpack(a[:, ::2].T), np.asarray(a)[:, ::2].T)
    with pytest.raises(BufferError):
        np.from_dlpack(manager.array(np.array(["text"])))


def test_dlpack_is_writeable_only_where_readers_are_told(manager: ArrayManager) -> None:
    a = manager.arange(6.0)
    with a.lock:
        assert not np.from_dlpack(a).flags.writeable
    with a.write():
        assert np.from_dlpack(a).flags.writeable


def test_dlpack_of_a_proxy_that_is_not_mapped_copies(manager: ArrayManager) -> None:
    a = manager.arange(6.0).on_host
    shared = np.from_dlpack(a)
    assert_same(shared, np.arange(6.0))
    with pytest.raises(BufferError, match="without a copy"):
        np.from_dlpack(a, copy=False)
    assert a.__dlpack_device__() == (1, 0)


def test_torch_shares_the_memory_and_writes_in_a_section(manager: ArrayManager) -> None:
    torch = pytest.importorskip("torch")
    a = manager.zeros(4)
    assert torch.from_dlpack(a).data_ptr() == address(a.live)
    with a.write() as x:
        for tensor in (torch.from_dlpack(x), torch.from_dlpack(a)):
            tensor += 1
            assert tensor.data_ptr() == address(x)
    assert a.tolist() == [2, 2, 2, 2]


# -- Dask and notebooks ---------------------------------------------------------------------------------------------


def test_dask_takes_another_token_after_a_write(
    manager: ArrayManager, kind: Callable[[HostedArray], HostedArray]
) -> None:
    tokenize = dask.base.tokenize
    base = manager.arange(6.0)
    a = kind(base)
    token = tokenize(a)
    assert token == tokenize(a) == tokenize(pickle.loads(pickle.dumps(a)))
    others = [a[1:], a[::-1], a.view("i8"), a.reshape(2, 3), manager.arange(6.0)]
    assert len({token, *map(tokenize, others)}) == 6
    base[0] = 0  # also a write of the same value
    written = tokenize(a)
    with base.write() as x:
        x[0] = 5
    assert len({token, written, tokenize(a)}) == 3


def test_html_for_notebooks(manager: ArrayManager, kind: Callable[[HostedArray], HostedArray]) -> None:
    for array in (
        np.arange(5000.0).reshape(50, 100), np.array(3), np.zeros((0, 3)), np.zeros((2, 0, 3, 4)), np.zeros((0, 3, 4)),
        np.array(["<b>", "&"]), np.ones((3, 2, 4, 5), "i2"),
    ):  # fmt: skip
        hosted = kind(manager.array(array))
        shown = hosted._repr_html_()
        assert str(array.shape) in shown
        assert str(array.dtype).replace("<", "&lt;") in shown
        assert hosted._source.link.address in shown
        assert "<b>" not in shown
    text = kind(manager.array(np.arange(5000.0).reshape(50, 100)))._repr_html_()
    assert "the first elements, shape (6, 6)" in text
    assert " 505." in text
    assert " 506." not in text


def test_html_of_a_torn_array(manager: ArrayManager) -> None:
    a = manager.ones(3)
    a.guard.words[a.guard.base + 1] += 1
    a.guard._note_dead_writer()
    assert "died" in a._repr_html_()
    a.recover()


# -- types ----------------------------------------------------------------------------------------------------------

SNIPPET = """
from typing import Any, reveal_type
import numpy as np
from arrayhost import ArrayManager, HostedArray

def takes_array(x: np.ndarray[Any, np.dtype[np.float64]]) -> None: ...

def use(a: HostedArray[tuple[int, int], np.dtype[np.float64]], manager: ArrayManager) -> None:
    reveal_type(a)
    reveal_type(a.shape)
    reveal_type(a.dtype)
    reveal_type(a.mean())
    reveal_type(a.atomic.add(0, 1))
    reveal_type(a.blocks(3))
    takes_array(a)
    np.linalg.norm(a)
    with a.write() as x:
        reveal_type(x)
    a.no_such_method()
    reveal_type(manager.zeros(3))
"""


@pytest.mark.slow
@pytest.mark.watchdog(120)
def test_editors_and_type_checkers_know_what_an_array_has(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir", str(root / ".mypy_cache"), str(snippet)]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=root)
    revealed = [line.partition("Revealed type is ")[2] for line in completed.stdout.splitlines() if "Revealed" in line]
    assert revealed == [
        '"arrayhost.client.array.HostedArray[tuple[int, int], numpy.dtype[numpy.float64]]"',
        '"tuple[int, int]"',
        '"numpy.dtype[numpy.float64]"',
        *revealed[3:],
    ]
    assert "HostedArray" in revealed[5]
    assert "ndarray" in revealed[6]
    assert "HostedArray" in revealed[7]
    errors = [line for line in completed.stdout.splitlines() if "error:" in line]
    assert len(errors) == 1, completed.stdout
    assert '"no_such_method"' in errors[0]


def test_the_class_can_be_written_with_types() -> None:
    code = (
        "import numpy as np, arrayhost\n"
        "print(arrayhost.HostedArray[tuple[int, int], np.dtype[np.float64]])\n"
    )  # fmt: skip
    assert "HostedArray[tuple[int, int], numpy.dtype[numpy.float64]]" in run_python(code).stdout
