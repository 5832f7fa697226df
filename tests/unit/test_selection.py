"""Selections against NumPy's own views: form, elements, and what is written through them block by block."""

import itertools
import random
from typing import Any

import numpy as np
import pytest

from arrayhost.engines.dask.selection import Selection


def index_of(chance: random.Random, n: int) -> Any:
    if n and chance.random() < 0.25:
        return chance.randrange(-n, n)
    bounds = [None, *range(-n - 1, n + 2)]
    return slice(chance.choice(bounds), chance.choice(bounds), chance.choice([None, 1, 2, -1, -3, 3]))


def cut(chance: random.Random, n: int) -> tuple[int, ...]:
    sizes: list[int] = []
    while sum(sizes) < n:
        sizes.append(chance.randrange(1, n - sum(sizes) + 1))
    return tuple(sizes)


def view_of(chance: random.Random, a: np.ndarray) -> tuple[np.ndarray, Any]:
    """A view of a view of a view, and the selection made in the same steps."""
    view, chosen = a, Selection.all(a.shape)
    for _ in range(2):
        if not view.ndim:
            break
        index = (*(index_of(chance, n) for n in view.shape[: chance.randrange(1, view.ndim + 1)]), ...)
        if chance.random() < 0.3:
            index = (None, *index)
        part = chosen.indexed(index)
        if part is None:  # a part of an axis of length 1 that is not the array's
            break
        view, chosen = view[index], part
        order = chance.sample(range(view.ndim), view.ndim)
        view, chosen = view.transpose(order), chosen.transposed(order)
    return view, chosen


def test_views_and_writes(seed: int) -> None:
    chance = random.Random(seed)
    values = np.random.default_rng(seed)
    for _ in range(1500):
        shape = tuple(chance.randrange(1, 9) for _ in range(chance.randrange(1, 4)))
        a = values.integers(1000, size=shape)
        view, chosen = view_of(chance, a)
        assert chosen.shape == view.shape
        assert (chosen.of(a) == view).all()
        assert Selection.from_wire(chosen.to_wire()) == chosen
        layout = chosen.layout(a.dtype)
        if view.size:
            assert layout.phantom().flags.c_contiguous == view.flags.c_contiguous
        new = values.integers(1000, size=[n if chance.random() < 0.8 else 1 for n in view.shape])
        expected = a.copy()
        chosen.of(expected)[...] = new
        written = a.copy()
        write(written, chosen, [cut(chance, n) for n in shape], new)
        assert (written == expected).all()


def write(a: np.ndarray, chosen: Any, chunks: list[tuple[int, ...]], value: np.ndarray) -> None:
    """What the workers do, each for its block."""
    corners = list(itertools.product(*([0, *np.cumsum(sizes)[:-1]] for sizes in chunks)))
    ends = list(itertools.product(*(np.cumsum(sizes) for sizes in chunks)))
    whole = chosen.whole_axes(value)
    for piece in chosen.pieces(chunks):
        block = tuple(slice(*pair) for pair in zip(corners[piece.number], ends[piece.number], strict=True))
        part = tuple(slice(None) if n == 1 else w for n, w in zip(whole.shape, piece.parts, strict=True))
        a[block][piece.local] = whole[part]


@pytest.mark.parametrize(
    "index", [[3, 0, 7], [-1, 2], (slice(None), [1, 1, 0]), np.arange(8) % 3 == 0, (..., np.array([2, 0]))], ids=str
)
def test_lists_of_positions_are_written_to(index: Any, rng: np.random.Generator) -> None:
    a = rng.integers(100, size=(8, 3))
    chosen = Selection.all(a.shape).assigned(index)
    expected = a.copy()
    new = rng.integers(1000, size=expected[index].shape)
    expected[index] = new
    write(a, chosen, [(3, 3, 2), (2, 1)], new)
    assert (a == expected).all()


def test_what_is_no_basic_index() -> None:
    whole = Selection.all((4, 5))
    for index in ([1, 2], np.zeros((4, 5), bool), "x", 1.5, (slice(None), [0])):
        assert whole.indexed(index) is None
    for index in (([0], [1]), (0, [1, 2]), np.zeros((4, 5), bool), True):
        assert whole.assigned(index) is None


@pytest.mark.parametrize("index", [4, (0, 5), (0, 0, 0), -5, (..., ...)])
def test_errors(index: Any) -> None:
    with pytest.raises(IndexError):
        Selection.all((4, 5)).indexed(index)
    with pytest.raises(IndexError):
        np.zeros((4, 5))[index]


@pytest.mark.parametrize("shape", [(5,), (3, 4, 5), (2, 3, 5)])
def test_values_that_do_not_broadcast(shape: tuple[int, ...]) -> None:
    value = np.zeros(shape)
    with pytest.raises(ValueError, match="could not broadcast input array"):
        Selection.all((3, 4)).whole_axes(value)
    with pytest.raises(ValueError, match="could not broadcast input array"):
        np.zeros((3, 4))[...] = value
