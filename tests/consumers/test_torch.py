"""torch: tensors of hosted arrays, by value and, through DLPack, of the memory itself."""

from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import NO_TORCH, assert_alike, assert_equal, library

torch = library("torch", skip=NO_TORCH)

CALLS = {
    "as_tensor": lambda torch, a: torch.as_tensor(a),
    "asarray": lambda torch, a: torch.asarray(a),
    "tensor": lambda torch, a: torch.tensor(a),
    "from_numpy of a copy": lambda torch, a: torch.from_numpy(a.copy()),
    "another dtype": lambda torch, a: torch.as_tensor(a, dtype=torch.float32),
    "a product": lambda torch, a: torch.as_tensor(a).T @ torch.as_tensor(a[:, :3]),
    "a row": lambda torch, a: torch.as_tensor(a[2]),
    "a batch": lambda torch, a: torch.utils.data.default_collate([a[0].copy(), a[1].copy()]),
}
NEGATIVE = "reversed"  # torch has no negative strides, from nobody


@pytest.mark.parametrize("name", CALLS)
def test_calls(torch: Any, matrices: Pairs, name: str) -> None:
    pairs = {view: pair for view, pair in matrices.items() if view != NEGATIVE}
    assert_alike(lambda a: CALLS[name](torch, a), pairs)


def test_assigning_tensors(torch: Any, hosted: Maker) -> None:
    a, x = hosted(np.zeros((5, 4))), np.zeros((5, 4))
    for array in (a, x):
        array[1:3] = torch.ones(4)
        array[torch.tensor([0, 4])] = torch.arange(4.0)
        array[torch.tensor([False, False, True, False, False])] += 5
        np.copyto(array[3], torch.full((4,), 2.0))
    assert_equal(a.copy(), x)


@pytest.mark.census_ignore("memfd:arrayhost:locks", reason="a lock file is opened when first used, and kept")
@pytest.mark.parametrize("make", ["from_dlpack", "as_tensor", "from_numpy"])
def test_a_tensor_of_the_memory_in_a_section(torch: Any, hosted: Maker, make: str) -> None:
    a = hosted(np.zeros((5, 4)))
    with a.write() as x:
        tensor = getattr(torch, make)(x)
        assert tensor.data_ptr() == x.ctypes.data
        tensor[1:3] += 7
        part = getattr(torch, make)(x[::2, 1:])
        part *= 2
        del tensor, part
    expected = np.zeros((5, 4))
    expected[1:3] += 7
    expected[::2, 1:] *= 2
    assert_equal(a.copy(), expected)
