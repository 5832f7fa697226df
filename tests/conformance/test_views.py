"""Views stay hosted: each kind is pickled to another process, written there and seen here, as NumPy's would be."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from numpy.lib.recfunctions import structured_to_unstructured
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import arrayhost
from arrayhost import ArrayManager, HostedArray
from tests.support import assert_same
from tests.support.remote import MAPPED

TABLE = np.arange(24.0).reshape(4, 6)
CUBE = np.arange(24, dtype="i4").reshape(2, 3, 4)
WAVE = (np.arange(12) * (1 - 2j)).reshape(3, 4)
LIST = np.zeros(5, [("id", "i4"), ("at", [("x", "f4"), ("y", "f4")]), ("tail", "u1", (3,))])
ONE = np.array(2.5)


def strided(x: Any, *args: Any, **kwargs: Any) -> Any:
    """NumPy's function, or the one for hosted arrays, which NumPy's does not ask."""
    return (arrayhost.as_strided if isinstance(x, HostedArray) else as_strided)(x, *args, **kwargs)


VIEWS: dict[str, tuple[np.ndarray, Callable[[Any], Any]]] = {
    "whole": (TABLE, lambda x: x[...]),
    "row": (TABLE, lambda x: x[1]),
    "column": (TABLE, lambda x: x[:, 2]),
    "rectangle": (TABLE, lambda x: x[1:3, 2:5]),
    "every second": (TABLE, lambda x: x[::2, ::3]),
    "backwards": (TABLE, lambda x: x[::-1, ::-2]),
    "new axis": (TABLE, lambda x: x[:, None, 1:]),
    "one element": (TABLE, lambda x: x[1, 2, ...]),
    "ellipsis": (CUBE, lambda x: x[..., 1]),
    "part of a part": (TABLE, lambda x: x[1:][:, 1:][::2]),
    "T": (TABLE, lambda x: x.T),
    "mT": (CUBE, lambda x: x.mT),
    "transpose": (CUBE, lambda x: x.transpose(2, 0, 1)),
    "np.transpose": (CUBE, lambda x: np.transpose(x, (1, 0, 2))),
    "permute_dims": (CUBE, lambda x: np.permute_dims(x, (2, 1, 0))),
    "swapaxes": (CUBE, lambda x: x.swapaxes(0, 2)),
    "moveaxis": (CUBE, lambda x: np.moveaxis(x, 0, -1)),
    "rollaxis": (CUBE, lambda x: np.rollaxis(x, 2)),
    "reshape": (TABLE, lambda x: x.reshape(3, 8)),
    "reshape of a part": (TABLE, lambda x: x[1:3].reshape(-1)),
    "np.reshape": (CUBE, lambda x: np.reshape(x, (6, 4))),
    "ravel": (TABLE, lambda x: x.ravel()),
    "squeeze": (TABLE, lambda x: x[:1].squeeze()),
    "expand_dims": (TABLE, lambda x: np.expand_dims(x, 1)),
    "atleast_3d": (TABLE, lambda x: np.atleast_3d(x)),
    "flip": (TABLE, lambda x: np.flip(x)),
    "fliplr": (TABLE, lambda x: np.fliplr(x)),
    "rot90": (TABLE, lambda x: np.rot90(x)),
    "split": (TABLE, lambda x: np.split(x, 2)[1]),
    "array_split": (TABLE, lambda x: np.array_split(x, 3, axis=1)[2]),
    "hsplit": (TABLE, lambda x: np.hsplit(x, 3)[0]),
    "iteration": (TABLE, lambda x: next(iter(x))),
    "field": (LIST, lambda x: x["id"]),
    "field of a field": (LIST, lambda x: x["at"]["y"]),
    "sub-array field": (LIST, lambda x: x["tail"][:, 1]),
    "several fields": (LIST, lambda x: x[["id", "tail"]]),
    "structured_to_unstructured": (LIST, lambda x: structured_to_unstructured(x["at"])),
    "getfield": (TABLE, lambda x: x.getfield("i4", 4)),
    "view as bytes": (TABLE, lambda x: x.view("u1")),
    "view as other numbers": (TABLE, lambda x: x.view("i8")),
    "real": (WAVE, lambda x: x.real),
    "imag": (WAVE, lambda x: x.imag),
    "np.imag": (WAVE, lambda x: np.imag(x)),
    "meshgrid": (TABLE, lambda x: np.meshgrid(x[0], x[1], copy=False, sparse=True)[1]),
    "einsum": (TABLE, lambda x: np.einsum("ij->ji", x)),
    "einsum diagonal": (TABLE, lambda x: np.einsum("ii->i", x[:, :4])),
    "nothing": (TABLE, lambda x: x[2:2]),
    "0-d": (ONE, lambda x: x.reshape(1)),
    "as type without copy": (TABLE, lambda x: x.astype("f8", copy=False)),
    "as_strided": (TABLE, lambda x: strided(x[1:], (3, 2), (48, 16))),
    "as_strided, overlapping": (TABLE, lambda x: strided(x, (3, 4), (8, 8))),
    "as_strided, backwards": (TABLE, lambda x: strided(x[2, ::-1], (3,), (-16,))),
    # NumPy's own views of these kinds are read-only
    "diagonal": (TABLE, lambda x: x.diagonal(1)),
    "np.diagonal": (CUBE, lambda x: np.diagonal(x, axis1=1, axis2=2)),
    "diag": (TABLE, lambda x: np.diag(x)),
    "sliding windows": (TABLE, lambda x: sliding_window_view(x, (2, 3))),
    "broadcast_to": (TABLE, lambda x: np.broadcast_to(x[0], (4, 6))),
    "as_strided, read-only": (TABLE, lambda x: strided(x, (4, 4), (0, 8), writeable=False)),
    "of a read-only view": (TABLE, lambda x: np.broadcast_to(x, (2, 4, 6))[:, 1:].T),
}  # fmt: skip
READ_ONLY = ("diagonal", "np.diagonal", "diag", "sliding windows", "broadcast_to", "as_strided, read-only",
             "of a read-only view")  # fmt: skip


def write_views(pipe: Connection) -> None:
    """In the other process: read each view that comes, write to it, tell what happened."""
    while (data := pipe.recv()) is not None:
        view = pickle.loads(data)
        seen = view.copy()
        try:
            view[...] = np.ones(view.shape, "i1") if view.dtype.names is None else np.ones((), view.dtype)
            error = None
        except ValueError as raised:
            error = str(raised)
        pipe.send((type(view).__qualname__, seen, view.flags.writeable, error))
        del view, seen


@pytest.fixture(scope="module")
def other_process(manager: ArrayManager) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=write_views, args=(theirs,))
    process.start()
    theirs.close()
    ours.send(pickle.dumps(manager.zeros(1)))  # makes its connections
    ours.recv()
    yield ours
    ours.send(None)
    process.join()
    ours.close()


def test_there_are_forty_kinds() -> None:
    print(f"{len(VIEWS)} kinds of view, {len(READ_ONLY)} of them read-only")
    assert len(VIEWS) >= 40


@pytest.mark.parametrize("kind", VIEWS)
def test_view(manager: ArrayManager, other_process: Connection, kind: str) -> None:
    base, take = VIEWS[kind]
    array = base.copy()
    hosted = manager.array(array)
    view, expected = take(hosted), take(array)
    assert isinstance(view, HostedArray)
    assert view.flags.writeable == expected.flags.writeable == (kind not in READ_ONLY)
    assert (view.strides, view.dtype) == (expected.strides, expected.dtype)
    data = pickle.dumps(view)
    assert len(data) < 1000
    del view  # the pickle keeps the array by itself

    other_process.send(data)
    name, seen, writeable, error = other_process.recv()

    assert name == type(hosted).__qualname__
    assert_same(seen, np.asarray(expected, order="C"))
    assert writeable == expected.flags.writeable
    if expected.flags.writeable:
        assert error is None
        expected[...] = 1 if expected.dtype.names is None else np.ones((), expected.dtype)
    else:
        assert error == "assignment destination is read-only"
    assert_same(hosted.copy(), array)


def test_a_view_of_a_sparse_column_by_a_function_nobody_classified(manager: ArrayManager) -> None:
    # Its private copy is dense, since the gaps are nearly all of it; the view is translated back.
    wide = np.zeros((3000, 600))
    hosted = manager.array(wide)
    for take in (lambda x: np.real_if_close(x[:, 5])[::-2], lambda x: np.real_if_close(x[::3, 1:3].T)[1:, 4:]):
        view, expected = take(hosted), take(wide)
        assert isinstance(view, HostedArray)
        assert (view.shape, view.strides) == (expected.shape, expected.strides)
        view[...] = expected[...] = np.arange(expected.size).reshape(expected.shape)
        assert_same(hosted.copy(), wide)


@pytest.mark.parametrize(
    ("shape", "strides", "message"),
    [
        ((3,), (8, 8), "cannot make a view with shape"),
        ((-1,), (8,), "cannot make a view with shape"),
        ((25,), (8,), "from byte 0 to byte 200 of an array that spans 192 bytes"),
        ((2,), (-8,), "from byte -8"),
        ((2,), (2**62,), "would reach"),
        ((2**62,), (0,), "larger than NumPy can describe"),
        ((1,), (2**70,), "larger than NumPy can describe"),
    ],
)
def test_as_strided_stays_inside_of_the_array(manager: ArrayManager, shape: Any, strides: Any, message: str) -> None:
    hosted = manager.array(TABLE)
    for array in (hosted, hosted.on_host):
        with pytest.raises(ValueError, match=message):
            arrayhost.as_strided(array, shape, strides)
    with pytest.raises(ValueError, match="of an array that spans 0 bytes"):
        arrayhost.as_strided(hosted[:0], (1,), (1,))
    with pytest.raises(TypeError, match="takes a hosted array, not a ndarray"):
        arrayhost.as_strided(TABLE, shape, strides)


def test_numpys_as_strided_does_not_ask_the_array(manager: ArrayManager, link: str) -> None:
    # NumPy gives a stand-in no say here: the result is live memory, as from np.asarray, and read-only; or a copy.
    hosted = manager.array(TABLE)
    windows = as_strided(hosted, (3, 2), (48, 8))
    assert type(windows) is np.ndarray
    assert not windows.flags.writeable
    hosted[0, 0] = 100
    assert windows[0, 0] == (100 if link == MAPPED else 0)
