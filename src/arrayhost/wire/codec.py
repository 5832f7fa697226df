"""Values to bytes and back: msgpack, with types of its own for what arrays need.

Every type has one row in the tables at the end. Large buffers are not copied into the bytes: they go into a list of
attachments that the stream carries beside them. What no row covers is pickled, if the other side may be trusted with
that: a peer on a Unix socket that belongs to the same user could debug this process anyway. From any other peer no
pickle is ever read.
"""

from __future__ import annotations

import io
import pickle
import struct
import types
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from arrayhost.core.handles import ArrayHandle, ObjectHandle, Written
from arrayhost.core.layout import Layout, check_mappable, dtype_from_wire, dtype_to_wire
from arrayhost.errors import ArgumentEncodingError, ProtocolError, UnsupportedDTypeError, format_bytes
from arrayhost.wire.frames import MAX_BODY_BYTES, MAX_UNTRUSTED_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

__all__ = ["ATTACH_FROM", "MAX_REQUEST_BYTES", "Codec", "Encoder", "decoded_bytes", "pack_handle", "unpack_handle"]

# From this size a buffer travels as an attachment: a memory file costs about 30 µs, copying 64 KiB about as much.
ATTACH_FROM = 64 * 1024
_MAX_DEPTH = 64
# What an answer's body holds beside its value stays far below this.
MAX_VALUE_BYTES = MAX_BODY_BYTES - 1024
# Of a request to a host that does not trust this client.
MAX_REQUEST_BYTES = MAX_UNTRUSTED_BYTES - 1024
# Containers and values with a type code that one message of an untrusted peer may hold. An empty list is one byte and
# then 64, a set four bytes and then 240.
MAX_PARTS = 1_000_000
_PART_BYTES = 240
# A handle may become a proxy, which takes more.
_HANDLE_PARTS = 16
# Numbers and text take at most this much for each byte: 40 for an integer of two.
_GROWTH = 20
# Of a smaller message, the parts are not counted.
_COUNT_FROM = 64 * 1024
_NO_HOOKS: dict[str, Any] = {}
# That of an array with many fields is the longest.
MAX_HANDLE_BYTES = 1024 * 1024

TUPLE, INLINE_ARRAY, ATTACHED_ARRAY, SCALAR, SLICE, ELLIPSIS, COMPLEX, DTYPE, SET, FROZENSET, BIG_INT = range(1, 12)
ARRAY_HANDLE, OBJECT_HANDLE, PICKLE, RANGE, BYTEARRAY, TYPE, WRITTEN = range(12, 19)

_NAMED_TYPES: dict[str, Any] = {
    t.__name__: t for t in (bool, int, float, complex, str, bytes, object, list, tuple, dict)
}
_NAMED_TYPES |= {f"np.{t.__name__}": t for t in {*np.sctypeDict.values()}}
_TYPE_NAMES = {value: name for name, value in _NAMED_TYPES.items()}


def pack_handle(handle: ArrayHandle) -> bytes:
    """Encode an array's handle, to be wrapped with `array_reference`."""
    layout = handle.layout
    return msgpack.packb(  # type: ignore[no-any-return]  # msgpack has no annotations
        [
            handle.ident, handle.slot, handle.generation, handle.segment, handle.start, handle.n_bytes,
            layout.offset, layout.shape, layout.strides, dtype_to_wire(layout.dtype), layout.writeable,
        ]
    )  # fmt: skip


def unpack_handle(data: bytes) -> ArrayHandle:
    """Decode `pack_handle`.

    Raises
    ------
    ProtocolError
        It is none, or names a place outside the array's part of its segment.
    """
    if len(data) > MAX_HANDLE_BYTES:
        raise ProtocolError(f"an array handle of {len(data)} bytes")
    try:
        *place, offset, shape, strides, dtype, writeable = msgpack.unpackb(data)
        ident, slot, generation, segment, start, n_bytes = place
        values = (*place, offset, *shape, *strides)
        if not all(type(value) is int for value in values):
            raise TypeError("not integers")
        layout = Layout(offset, tuple(shape), tuple(strides), dtype_from_wire(dtype), bool(writeable))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError("no array handle") from error
    layout.check(n_bytes)
    return ArrayHandle(ident, slot, generation, segment, start, n_bytes, layout)


def array_reference(packed: bytes) -> msgpack.ExtType:
    """Wrap a packed handle for use inside a value: encoding it again costs nothing."""
    return msgpack.ExtType(ARRAY_HANDLE, packed)


class Encoder:
    """Encode one message's values.

    Parameters
    ----------
    reference : callable
        Given a value that has no row in the table, return what stands for it on the wire (a handle, an
        `array_reference`, an ndarray), or None.
    allow_pickle : bool
        Whether the receiver reads pickles.
    max_bytes : int
        What the receiver takes.

    Attributes
    ----------
    attachments : list of ndarray
        Large buffers that belong to the message.
    """

    def __init__(
        self, reference: Callable[[Any], Any], *, allow_pickle: bool, max_bytes: int = MAX_VALUE_BYTES
    ) -> None:
        self._reference = reference
        self._allow_pickle = allow_pickle
        self._max_bytes = max_bytes
        self.attachments: list[npt.NDArray[Any]] = []
        self._depth = 0

    def encode(self, value: Any) -> bytes:
        """Return the bytes of `value`.

        Raises
        ------
        ArgumentEncodingError
            Part of it cannot travel; nothing was sent.
        """
        try:
            data = self._pack(value)
        except (ValueError, RecursionError) as error:
            raise ArgumentEncodingError(f"this value cannot be sent to another process: {error}") from error
        if len(data) > self._max_bytes:
            raise ArgumentEncodingError(
                f"this value takes {format_bytes(len(data))} as a message, and {format_bytes(self._max_bytes)} is the "
                "most; arrays travel beside messages and may have any size"
            )
        return data

    def _pack(self, value: Any) -> bytes:
        return msgpack.packb(  # type: ignore[no-any-return]  # msgpack has no annotations
            value, default=self._default, strict_types=True, unicode_errors="surrogatepass"
        )

    def _default(self, value: Any) -> Any:
        encode = _ENCODERS.get(type(value))
        if encode is not None:
            return encode(self, value)
        replacement = self._reference(value)
        if replacement is not None:
            # msgpack asks once for each value, so what the replacement needs is done here.
            if type(replacement) is np.ndarray:
                # A copy of what the value stands for: writing to it would change nothing, so it must fail there.
                return _encode_array(self, replacement, writeable=False)
            encode = _ENCODERS.get(type(replacement))
            return replacement if encode is None else encode(self, replacement)
        if isinstance(value, np.generic):
            return _encode_scalar(self, value)
        if isinstance(value, np.dtype):
            return _encode_dtype(self, value)
        if isinstance(value, type) and value in _TYPE_NAMES:
            return msgpack.ExtType(TYPE, _TYPE_NAMES[value].encode())
        return self.pickled(value)

    def pickled(self, value: Any) -> msgpack.ExtType:
        """Encode a value that has no type of its own."""
        if not self._allow_pickle:
            raise ArgumentEncodingError(
                f"a {type(value).__module__}.{type(value).__qualname__} cannot travel over the network: "
                "send numbers, text, containers of these, and arrays"
            )
        try:
            # Knows how connections, sockets and the like travel. Plain pickle would send their descriptors' numbers,
            # which stand for something else at the other end.
            return msgpack.ExtType(PICKLE, bytes(ForkingPickler.dumps(value, protocol=5)))
        except (pickle.PicklingError, TypeError, AttributeError, ImportError, RuntimeError) as error:
            raise ArgumentEncodingError(
                f"a {type(value).__module__}.{type(value).__qualname__} cannot be sent to another process, because it "
                f"cannot be pickled ({error}); send plain data, or an object of a class that can be imported"
            ) from error

    def nested(self, code: int, value: Any) -> msgpack.ExtType:
        """Encode a value of plain parts under a type code."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ArgumentEncodingError(f"containers nested more than {_MAX_DEPTH} deep cannot be sent")
        try:
            return msgpack.ExtType(code, self._pack(value))
        finally:
            self._depth -= 1


class Codec:
    """Decode messages from one kind of peer.

    Parameters
    ----------
    resolve : callable
        Given an array's packed handle (bytes) or an `ObjectHandle`, return what stands in its place in the value.
    attachments : sequence of ndarray of uint8
        The message's large buffers.
    allow_pickle : bool
        Whether this peer's pickles are read.
    max_parts : int, optional
        Containers and values with a type code that a message may hold; None for any number. Without a bound, 64 MiB
        of empty lists decode to 4 GiB.
    """

    def __init__(
        self,
        resolve: Callable[[Any], Any],
        attachments: Sequence[npt.NDArray[Any]] = (),
        *,
        allow_pickle: bool,
        max_parts: int | None = None,
    ) -> None:
        self.resolve = resolve
        self.attachments = attachments
        self.allow_pickle = allow_pickle
        self._depth = 0
        self._max_parts = max_parts
        self._n_parts = 0
        self._hooks = _NO_HOOKS

    def decode(self, data: bytes) -> Any:
        """Return the value that `data` encodes.

        Raises
        ------
        ProtocolError
            It encodes none, or one that this peer may not send.
        """
        if self._max_parts is not None and len(data) > _COUNT_FROM:
            self._hooks = {"list_hook": self._counted, "object_hook": self._counted}
        try:
            return self.unpack(data)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error, RecursionError) as error:
            if isinstance(error, (UnsupportedDTypeError, ProtocolError)):
                raise
            raise ProtocolError(f"a malformed message: {error}") from error
        except msgpack.exceptions.UnpackException as error:
            raise ProtocolError(f"a malformed message: {error}") from error

    def unpack(self, data: bytes) -> Any:
        """Decode without translating errors; for nested values."""
        return msgpack.unpackb(
            data, ext_hook=self._ext, strict_map_key=False, unicode_errors="surrogatepass", raw=False, **self._hooks
        )

    def _counted(self, part: Any) -> Any:
        """Count a container that has just been decoded, and give it back."""
        self._count(1)
        return part

    def _count(self, n: int) -> None:
        self._n_parts += n
        if self._max_parts is not None and self._n_parts > self._max_parts:
            raise ProtocolError(
                f"a message with more than {self._max_parts:,} lists, dicts and the like: send an ndarray instead"
            )

    def _ext(self, code: int, data: bytes) -> Any:
        if self._hooks:
            self._count(_HANDLE_PARTS if code in (ARRAY_HANDLE, OBJECT_HANDLE) else 1)
        if code == ARRAY_HANDLE:
            return self.resolve(data)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ProtocolError("a message nested too deeply")
        try:
            return _DECODERS[code](self, data)
        finally:
            self._depth -= 1


def decoded_bytes(n_bytes: int) -> int:
    """The most memory that a message of an untrusted peer takes when it is decoded."""
    return _GROWTH * n_bytes + _PART_BYTES * min(MAX_PARTS, n_bytes // 4)


# -- one pair of functions a type ---------------------------------------------------------------------------------


def _encode_array(encoder: Encoder, array: npt.NDArray[Any], *, writeable: bool = True) -> Any:
    if array.dtype.hasobject or array.dtype.kind == "T":
        return encoder.pickled(array)
    order = _memory_order(array)
    about = [dtype_to_wire(array.dtype), list(array.shape), order, writeable]
    straight = array.transpose(order) if isinstance(order, list) else array
    if array.nbytes < ATTACH_FROM:
        letter: Any = order if isinstance(order, str) else "C"
        return encoder.nested(INLINE_ARRAY, [*about, straight.tobytes(letter)])
    encoder.attachments.append(straight)
    return encoder.nested(ATTACHED_ARRAY, [*about, len(encoder.attachments) - 1])


def _memory_order(array: npt.NDArray[Any]) -> str | list[int]:
    """Order in memory that a copy with ``order="K"`` has: C, F, or the axes from the slowest to the fastest."""
    if array.flags.c_contiguous:
        return "C"
    if array.flags.f_contiguous:
        return "F"
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    return "C" if axes == sorted(axes) else axes


def _shaped(buffer: Any, dtype_wire: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    dtype = dtype_from_wire(dtype_wire)
    check_mappable(dtype)
    if not all(type(n) is int for n in shape):
        raise ProtocolError("no shape")
    if isinstance(order, list) and sorted(order) == list(range(len(shape))):
        straight = _shaped(buffer, dtype_wire, [shape[axis] for axis in order], "C")
        return straight.transpose(np.argsort(order))
    if order not in ("C", "F"):
        raise ProtocolError("no order")
    layout = Layout.contiguous(tuple(shape), dtype, order)
    layout.check(len(buffer))
    return np.ndarray(layout.shape, dtype, buffer, 0, layout.strides)


def _decode_inline_array(codec: Codec, data: bytes) -> npt.NDArray[Any]:
    dtype, shape, order, writeable, raw = codec.unpack(data)
    return _shaped(bytearray(raw) if writeable else raw, dtype, shape, order)


def _decode_attached_array(codec: Codec, data: bytes) -> npt.NDArray[Any]:
    dtype, shape, order, writeable, number = codec.unpack(data)
    array = _shaped(codec.attachments[number], dtype, shape, order)
    array.flags.writeable = bool(writeable)
    return array


def _encode_scalar(encoder: Encoder, value: Any) -> Any:
    try:
        check_mappable(value.dtype)
    except UnsupportedDTypeError:
        return encoder.pickled(value)
    return encoder.nested(SCALAR, [dtype_to_wire(value.dtype), value.tobytes()])


def _decode_scalar(codec: Codec, data: bytes) -> Any:
    dtype, raw = codec.unpack(data)
    return _shaped(bytearray(raw), dtype, (), "C")[()]


def _encode_dtype(encoder: Encoder, dtype: np.dtype[Any]) -> Any:
    if dtype.hasobject or dtype.kind == "T":
        return encoder.pickled(dtype)
    return encoder.nested(DTYPE, dtype_to_wire(dtype))


def _encode_complex(encoder: Encoder, value: complex) -> Any:
    return msgpack.ExtType(COMPLEX, struct.pack("<dd", value.real, value.imag))


def _decode_big_int(codec: Codec, data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _encode_big_int(encoder: Encoder, value: int) -> Any:
    return msgpack.ExtType(BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _encode_object_handle(encoder: Encoder, handle: ObjectHandle) -> Any:
    return encoder.nested(OBJECT_HANDLE, [handle.ident, handle.typeid, list(handle.methods), handle.attributes])


def _decode_object_handle(codec: Codec, data: bytes) -> Any:
    ident, typeid, methods, attributes = codec.unpack(data)
    return codec.resolve(ObjectHandle(int(ident), str(typeid), tuple(map(str, methods)), bool(attributes)))


class _Unpickler(pickle.Unpickler):
    """Unpickle in the context of a codec; a class so that a test can count its uses."""


def _decode_pickle(codec: Codec, data: bytes) -> Any:
    if not codec.allow_pickle:
        raise ProtocolError("a pickle from a peer that may not send one")
    return _Unpickler(io.BytesIO(data)).load()


_ENCODERS: dict[type, Callable[[Encoder, Any], Any]] = {
    # What a hosted dict's keys() and the like return; lists, as the standard library's proxies give them.
    **dict.fromkeys(map(type, ({}.keys(), {}.values(), {}.items())), lambda _, value: list(value)),
    tuple: lambda encoder, value: encoder.nested(TUPLE, list(value)),
    np.ndarray: _encode_array,
    slice: lambda encoder, value: encoder.nested(SLICE, [value.start, value.stop, value.step]),
    types.EllipsisType: lambda _, value: msgpack.ExtType(ELLIPSIS, b""),
    complex: _encode_complex,
    set: lambda encoder, value: encoder.nested(SET, list(value)),
    frozenset: lambda encoder, value: encoder.nested(FROZENSET, list(value)),
    int: _encode_big_int,
    range: lambda encoder, value: encoder.nested(RANGE, [value.start, value.stop, value.step]),
    bytearray: lambda _, value: msgpack.ExtType(BYTEARRAY, bytes(value)),
    ArrayHandle: lambda _, value: array_reference(pack_handle(value)),
    ObjectHandle: _encode_object_handle,
    Written: lambda _, value: msgpack.ExtType(WRITTEN, bytes([value.number])),
}

_DECODERS: dict[int, Callable[[Codec, bytes], Any]] = {
    TUPLE: lambda codec, data: tuple(codec.unpack(data)),
    INLINE_ARRAY: _decode_inline_array,
    ATTACHED_ARRAY: _decode_attached_array,
    SCALAR: _decode_scalar,
    SLICE: lambda codec, data: slice(*codec.unpack(data)),
    ELLIPSIS: lambda codec, data: ...,
    COMPLEX: lambda codec, data: complex(*struct.unpack("<dd", data)),
    DTYPE: lambda codec, data: dtype_from_wire(codec.unpack(data)),
    SET: lambda codec, data: set(codec.unpack(data)),
    FROZENSET: lambda codec, data: frozenset(codec.unpack(data)),
    BIG_INT: _decode_big_int,
    OBJECT_HANDLE: _decode_object_handle,
    PICKLE: _decode_pickle,
    RANGE: lambda codec, data: range(*codec.unpack(data)),
    BYTEARRAY: lambda codec, data: bytearray(data),
    WRITTEN: lambda codec, data: Written(data[0]),
    TYPE: lambda codec, data: _NAMED_TYPES[data.decode()],
}
