"""Layouts: where an array lies in its segment, and the refusal of those that would reach outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arrayhost.core.layout import Layout, check_mappable, dtype_from_wire, dtype_to_wire
from arrayhost.errors import ProtocolError, UnsupportedDTypeError

DTYPES = [
    np.dtype(spec)
    for spec in (
        "?", "i1", ">u2", "<f8", ">c16", "f2", "S5", "<U7", ">U3", "M8[ns]", "m8[25s]", "V9", "g",
        [("a", "i4"), ("b", "f8", (2, 3))],
        [("outer", [("x", ">i2"), ("y", "S3")]), ("t", "M8[us]")],
        [(("a title", "a"), "i4"), ("b", "f4")],
        {"names": ["a", "b"], "formats": ["i2", "f8"], "offsets": [0, 16], "itemsize": 40},
        {"names": ["b", "a"], "formats": ["i4", "i4"], "offsets": [4, 0]},
    )
] + [np.dtype([("a", "i1"), ("b", "f8")], align=True)]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_dtype_survives_the_wire(dtype: np.dtype) -> None:
    again = dtype_from_wire(dtype_to_wire(dtype))
    assert again == dtype
    assert again.itemsize == dtype.itemsize
    assert again.isalignedstruct == dtype.isalignedstruct
    assert again.fields == dtype.fields


@given(hnp.array_dtypes())
def test_any_record_survives_the_wire(dtype: np.dtype) -> None:
    assert dtype_from_wire(dtype_to_wire(dtype)) == dtype


@pytest.mark.parametrize("wire", ["", "f8,i4", "float64", "<", 7, None, ["rec"], ["what", "<f8", [2]], ["sub", "<f8"],
                                  ["rec", [["a", "<f8", 0, None]], 4, False], ["sub", "<f8", ["x"]],
                                  "<" + "f" * 50, {}, []], ids=str)  # fmt: skip
def test_what_is_no_dtype_is_refused(wire: object) -> None:
    with pytest.raises(ProtocolError):
        dtype_from_wire(wire)


def test_a_dtype_nested_too_deeply_is_refused() -> None:
    wire: object = "<f8"
    for _ in range(40):
        wire = ["sub", wire, [1]]
    with pytest.raises(ProtocolError):
        dtype_from_wire(wire)


@given(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0), st.sampled_from("CF"), st.sampled_from(["i1", "f8", "S3"]))
def test_contiguous_is_numpys_own_layout(shape: tuple[int, ...], order: str, dtype: str) -> None:
    expected = np.empty(shape, dtype, order)  # type: ignore[call-overload]  # the stubs know literals only
    layout = Layout.contiguous(shape, dtype, order)
    assert layout.nbytes == expected.nbytes
    layout.check(expected.nbytes)
    ours = np.ndarray(shape, dtype, bytearray(max(1, expected.nbytes)), 0, layout.strides)
    if expected.size:
        assert layout.strides == expected.strides
        assert ours.flags.c_contiguous == expected.flags.c_contiguous
        assert ours.flags.f_contiguous == expected.flags.f_contiguous


@given(st.data())
def test_the_extent_covers_exactly_what_a_view_touches(data: st.DataObject) -> None:
    whole = np.arange(60, dtype="i2").reshape(3, 4, 5)
    view = whole[data.draw(hnp.basic_indices(whole.shape, allow_newaxis=True, allow_ellipsis=True))]
    if not isinstance(view, np.ndarray):
        return
    start = whole.__array_interface__["data"][0]
    offset = view.__array_interface__["data"][0] - start if view.size else 0
    low, high = Layout(offset, view.shape, view.strides, view.dtype).extent()
    if view.size:
        expected_low, expected_high = np.lib.array_utils.byte_bounds(view)
        assert (low, high) == (expected_low - start, expected_high - start)
    else:
        assert low == high


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (1,), (8,)),
        (0, (-1,), (8,)),
        (0, (3,), (8,)),
        (0, (2,), (-8,)),
        (8, (2,), (8,)),
        (9, (1,), (8,)),
        (0, (2, 2), (8,)),
        (0, (2**62,), (8,)),
        (0, (2**62,), (0,)),
        (0, (1,) * 65, (8,) * 65),
        (17, (0,), (8,)),
    ],
)
def test_a_layout_outside_its_segment_is_refused(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ProtocolError):
        Layout(offset, shape, strides, np.dtype("f8")).check(16)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (2,), (8,)), (8, (2,), (-8,)), (8, (), ()), (0, (100,), (0,)), (16, (0,), (8,))],
)
def test_a_layout_inside_its_segment_is_accepted(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    Layout(offset, shape, strides, np.dtype("f8")).check(16)


@pytest.mark.parametrize("dtype", [np.dtype(object), np.dtype([("a", "O")]), np.dtypes.StringDType()], ids=str)
def test_dtypes_that_hold_pointers_are_refused(dtype: np.dtype) -> None:
    with pytest.raises(UnsupportedDTypeError, match="pointers"):
        check_mappable(dtype)
    with pytest.raises(UnsupportedDTypeError):
        Layout(0, (1,), (dtype.itemsize,), dtype).check(1000)


@given(
    hnp.arrays("i2", hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)).flatmap(
        lambda array: st.tuples(st.just(array), hnp.basic_indices(array.shape, allow_newaxis=True))
    )
)
def test_a_basic_index_selects_the_place_that_numpy_selects(drawn: tuple[np.ndarray, object]) -> None:
    array, index = drawn
    origin = array.__array_interface__["data"][0]
    layout = Layout(0, array.shape, array.strides, array.dtype)
    part = layout.indexed(index)
    expected = array[index]  # type: ignore[index]  # the stubs know literals only
    if not isinstance(expected, np.ndarray):
        assert part is None
        return
    assert part is not None
    assert (part.shape, part.strides) == (expected.shape, expected.strides)
    assert not expected.size or part.offset == expected.__array_interface__["data"][0] - origin
    part.check(array.nbytes)
    assert part.phantom().flags.c_contiguous == expected.flags.c_contiguous


def test_a_part_of_an_array_without_elements_is_inside_its_segment() -> None:
    layout = Layout(0, (5, 0), (16, 8), np.dtype("f8"))
    for index in (4, slice(3, None), (slice(None, None, -1), ...)):
        part = layout.indexed(index)
        assert part is not None
        part.check(8)


@pytest.mark.parametrize("index", [True, [0], "a", 1.5, 9, (0, 0, 0), (..., ...), slice(1.5), slice(None, None, 0)])
def test_other_indices_are_left_to_numpy(index: object) -> None:
    assert Layout.contiguous((2, 3), "f8").indexed(index) is None
