"""The codec: every type comes back as it went, and nothing malformed comes through."""

import fractions
import math
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arrayhost.core.handles import ArrayHandle, ObjectHandle, Written
from arrayhost.core.layout import Layout
from arrayhost.errors import ArgumentEncodingError, ArrayHostError, ProtocolError
from arrayhost.wire import codec as codecs
from arrayhost.wire.codec import ATTACH_FROM, Codec, Encoder, pack_handle, unpack_handle
from tests.support import assert_same

RECORD = np.dtype([("a", "i4"), ("b", "f8", (2,)), ("c", [("x", ">i2"), ("y", "S3")])])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


def nothing(value: Any) -> None:
    return None


def travel(value: Any, *, allow_pickle: bool = False) -> Any:
    encoder = Encoder(nothing, allow_pickle=allow_pickle)
    data = encoder.encode(value)
    attachments = [np.frombuffer(bytearray(a.tobytes("A")), np.uint8) for a in encoder.attachments]
    return Codec(lambda handle: handle, attachments, allow_pickle=allow_pickle).decode(data)


def decode(data: bytes, *, allow_pickle: bool = False) -> Any:
    return Codec(lambda handle: handle, allow_pickle=allow_pickle).decode(data)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        2**64,
        -(2**63) - 1,
        10**300,
        -(10**300),
        1.5,
        math.inf,
        math.nan,
        -0.0,
        1 + 2j,
        complex(math.nan, -math.inf),
        "",
        "text \N{SNOWMAN}",
        "\ud800",
        b"",
        b"\x00raw",
        [],
        [1, [2, [3]]],
        (),
        (1,),
        (1, (2, (3,)), [4, (5,)]),
        {},
        {"a": (1, 2)},
        {1: 2, None: 3},
        {1.5: "x", b"k": "v", True: 0},
        set(),
        {1, 2},
        frozenset({3, 4.5}),
        {frozenset({1}), (1, 2)},
        range(3, 20, 4),
        slice(None),
        slice(1, None, -2),
        slice(np.int64(3), 2**70),
        ...,
        (slice(0, 3), ..., None),
        np.dtype("f8"),
        RECORD,
        ALIGNED,
        np.dtype("M8[25s]"),
        int,
        float,
        object,
        np.float32,
        np.int8,
        np.bool_,
        {"nested": [(np.float64(2.5), {"x": {(1, 2)}})]},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_plain_values(value: Any) -> None:
    assert_same(travel(value), value)


def test_the_sign_of_a_zero_travels() -> None:
    assert math.copysign(1, travel(-0.0)) == -1
    assert math.copysign(1, travel(complex(0, -0.0)).imag) == -1


@pytest.mark.parametrize(
    "scalar",
    [
        *(t(1) for t in (np.bool_, np.int8, np.uint16, np.int64, np.uint64, np.float16, np.float64, np.longdouble)),
        np.complex64(1 + 2j),
        np.clongdouble(3j),
        np.str_("snow \N{SNOWMAN}"),
        np.bytes_(b"ab"),
        np.datetime64("2024-02-29T12:00", "ns"),
        np.datetime64("NaT"),
        np.timedelta64(5, "D"),
        np.float64("nan"),
        np.void(b"xyz"),
        np.ones((), RECORD)[()],
    ],
    ids=lambda scalar: f"{type(scalar).__name__} {scalar!r}"[:40],
)
def test_numpy_scalars(scalar: np.generic) -> None:
    assert_same(travel(scalar), scalar)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(2, 3, 4),
        np.array(5.0),
        np.zeros((0, 3)),
        np.ones((3, 2), RECORD),
        np.ones(3, ALIGNED),
        np.array(["a", "bcd"]),
        np.arange(5, dtype=">i2"),
        np.array(["2024", "NaT"], "M8[ns]"),
        np.arange(10)[::-3],
        np.broadcast_to(np.float32(1), (3, 4)),
        np.arange(100_000.0).reshape(100, 1000),
        np.ones(5, "V3"),
        np.ones((300, 300), RECORD),
    ],
    ids=lambda a: f"{a.dtype}-{a.shape}"[:40],
)
def test_arrays(array: np.ndarray, order: str) -> None:
    array = np.asarray(array, order=order)  # type: ignore[call-overload]  # the stubs know literals only
    result = travel(array)
    assert_same(result, array)
    assert result.flags.writeable
    assert result.flags.f_contiguous == array.flags.f_contiguous or not array.flags.forc


@pytest.mark.parametrize("n", [2, 50])
@pytest.mark.parametrize("axes", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_arrays_keep_their_order_in_memory(n: int, axes: tuple[int, ...]) -> None:
    array = np.arange(60 * n * n).reshape(3 * n, 4 * n, 5).transpose(axes)
    assert_same(travel(array), array)
    assert travel(array).strides == array.strides
    assert travel(array[::-2, 1:]).strides == array[::-2, 1:].copy("K").strides


def test_large_buffers_travel_beside_the_message() -> None:
    large, small = np.zeros(ATTACH_FROM, np.uint8), np.zeros(ATTACH_FROM - 1, np.uint8)
    encoder = Encoder(nothing, allow_pickle=False)
    assert len(encoder.encode([large, (small, large)])) < ATTACH_FROM + 1000
    assert [a is large for a in encoder.attachments] == [True, True]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.builds(lambda x, y: slice(x, y, None), inner, inner)
    ),
    max_leaves=8,
)


def same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, slice):
        assert type(ours) is slice
        ours, theirs = (ours.start, ours.stop, ours.step), (theirs.start, theirs.stop, theirs.step)
    if isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            same(ours[key], theirs[key])
    else:
        assert_same(ours, theirs)


@given(plain)
def test_whatever_is_nested(value: Any) -> None:
    same(travel(value), value)


# -- handles ---------------------------------------------------------------------------------------------------------


def test_handles() -> None:
    layout = Layout(8, (2, 3), (-24, 8), np.dtype(RECORD), writeable=False)
    handle = ArrayHandle(2**40, 3, 9, 2**33, 64, 10**6, Layout(24, (2, 3), (-24, 8), np.dtype("f8"), writeable=False))
    assert unpack_handle(pack_handle(handle)) == handle
    assert unpack_handle(travel([handle])[0]) == handle
    with pytest.raises(ProtocolError):
        unpack_handle(pack_handle(ArrayHandle(1, 1, 1, 1, 0, 10**6, layout)))
    thing = ObjectHandle(5, "Queue", ("get", "__len__"), attributes=True)
    assert travel((thing,)) == (thing,)
    assert travel(Written(3)) == Written(3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb(5),
        msgpack.packb([1, 2]),
        msgpack.packb(None),
        msgpack.packb([1, 1, 1, 64, "x", [2], [8], "<f8", True]),
        msgpack.packb([1, 1, 1, 64, 0, [2.0], [8], "<f8", True]),
        msgpack.packb([1, 1, 1, 64, 0, [True], [8], "<f8", True]),
        msgpack.packb([1, 1, 1, 64, 0, 5, [8], "<f8", True]),
        msgpack.packb([1, 1, 1, 64, 0, [9], [8], "<f8", True]),
        msgpack.packb([1, 1, 1, 64, 0, [2], [8], "O", True]),
    ],
)
def test_a_malformed_handle_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_handle(data)


def test_values_without_a_row_are_replaced_by_their_reference() -> None:
    handle = ObjectHandle(1, "t", (), attributes=False)
    encoder = Encoder(lambda value: handle if isinstance(value, fractions.Fraction) else None, allow_pickle=False)
    assert decode(encoder.encode([fractions.Fraction(1, 2)])) == [handle]


# -- refusals --------------------------------------------------------------------------------------------------------


def test_a_pickle_needs_trust_on_both_sides() -> None:
    value = fractions.Fraction(1, 3)
    assert travel(value, allow_pickle=True) == value
    with pytest.raises(ArgumentEncodingError, match=r"fractions\.Fraction"):
        travel(value)
    data = Encoder(nothing, allow_pickle=True).encode([value])
    with pytest.raises(ProtocolError, match="pickle"):
        decode(data)


def test_objects_are_pickled_or_refused() -> None:
    array = np.array([1, "x", None], object)
    assert_same(travel(array, allow_pickle=True), array)
    for value in (array, np.array(["a"], np.dtypes.StringDType()), np.dtype(object)):
        with pytest.raises(ArgumentEncodingError):
            travel(value)


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(ArgumentEncodingError, match="function"):
        travel(lambda: None, allow_pickle=True)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"k": v}], ids=["list", "tuple", "dict"])
def test_nesting_without_end_is_refused(wrap: Any) -> None:
    value: Any = 1
    for _ in range(3000):
        value = wrap(value)
    with pytest.raises(ArgumentEncodingError):
        travel(value)


def test_a_list_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ArgumentEncodingError):
        travel(value)


def test_messages_nested_too_deeply_are_refused() -> None:
    data = msgpack.packb(1)
    for _ in range(200):
        data = msgpack.packb(msgpack.ExtType(codecs.TUPLE, data))
    with pytest.raises(ProtocolError):
        decode(data)


ARRAY = codecs.INLINE_ARRAY


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (99, None),
        (ARRAY, ["<f8", [3], "C", bytes(16)]),
        (ARRAY, ["<f8", [-1], "C", bytes(16)]),
        (ARRAY, ["<f8", [2**62, 2**62], "C", b""]),
        (ARRAY, ["<f8", [2.0], "C", bytes(16)]),
        (ARRAY, ["<f8", [2, 1], "K", bytes(16)]),
        (ARRAY, ["<f8", [2, 1], [0, 0], bytes(16)]),
        (ARRAY, ["<f8", [2, 1], [1], bytes(16)]),
        (ARRAY, ["<f8", [2, 1], [0, "1"], bytes(16)]),
        (ARRAY, ["<f8", [2], "X", bytes(16)]),
        (ARRAY, ["nonsense", [2], "C", bytes(16)]),
        (ARRAY, [1]),
        (ARRAY, ["<f8", [2], "C", "text"]),
        (codecs.ATTACHED_ARRAY, ["<f8", [1], "C", 0]),
        (codecs.SCALAR, ["<f8", b"123"]),
        (codecs.SLICE, [1, 2, 3, 4]),
        (codecs.RANGE, [0, 1, 0]),
        (codecs.DTYPE, "f8,f8"),
        (codecs.SET, [[1]]),
        (codecs.OBJECT_HANDLE, [1, 2]),
    ],
)
def test_a_malformed_value_is_refused(code: int, body: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(msgpack.packb(msgpack.ExtType(code, msgpack.packb(body))))


@pytest.mark.parametrize(
    ("code", "raw"),
    [
        (codecs.COMPLEX, b"123"),
        (codecs.TYPE, b"os"),
        (codecs.TYPE, b"\xff"),
        (codecs.WRITTEN, b""),
        (codecs.TUPLE, b""),
        (codecs.TUPLE, b"\x93"),
    ],
)
def test_malformed_bytes_are_refused(code: int, raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(msgpack.packb(msgpack.ExtType(code, raw)))


def test_object_arrays_cannot_be_smuggled_in() -> None:
    for wire in ("|O", "|T", ["rec", [["a", "|O", 0, None]], 8, False]):
        with pytest.raises(ArrayHostError):
            decode(msgpack.packb(msgpack.ExtType(ARRAY, msgpack.packb([wire, [1], "C", bytes(8)]))))


def test_a_truncated_message_is_refused_at_every_length() -> None:
    data = Encoder(nothing, allow_pickle=False).encode([(1, 2.5), np.arange(3), {"a": slice(1)}, 2**80])
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            decode(data[:length])
    with pytest.raises(ProtocolError):
        decode(data + b"\x01")


@given(st.binary(max_size=60))
def test_noise_is_decoded_or_refused(data: bytes) -> None:
    try:
        decode(data)
    except ArrayHostError:
        pass
