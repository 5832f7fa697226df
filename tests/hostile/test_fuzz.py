"""Fuzzed frames and values: a typed refusal, nothing else; the host goes on and does not grow."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrayhost.core.layout import dtype_from_wire
from arrayhost.errors import ProtocolError, UnsupportedDTypeError
from arrayhost.wire.codec import Codec, unpack_handle
from arrayhost.wire.frames import FrameDecoder
from arrayhost.wire.hello import Hello, unpack_hello
from tests.hostile.fuzz import Mutator, attack_host, packed, some_handles

# 100,000 in all by default, of which the live host gets a part; `make fuzz` sends it a million.
N_DECODED = 80_000
N_SENT = int(os.environ.get("ARRAYHOST_FUZZ_FRAMES", "20000"))

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=12),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


def decode(data: bytes) -> None:
    """Decode as a host does; refusals are what is expected."""
    try:
        Codec(lambda handle: unpack_handle(handle) if isinstance(handle, bytes) else handle, allow_pickle=False).decode(
            data
        )
    except (ProtocolError, UnsupportedDTypeError):
        pass


@given(plain)
@settings(max_examples=150)
def test_no_value_is_taken_for_a_hello(value: object) -> None:
    try:
        assert isinstance(unpack_hello(packed(value)), Hello)
    except ProtocolError:
        pass


@given(plain)
@settings(max_examples=150)
def test_no_value_crashes_the_dtype_decoder(value: object) -> None:
    try:
        dtype_from_wire(value)
    except ProtocolError:
        pass


@given(st.integers(1, 23), st.binary(max_size=60))
@settings(max_examples=200)
def test_every_extension_type_refuses_what_is_none(code: int, data: bytes) -> None:
    decode(b"\xc7" + bytes([len(data), code]) + data)


@given(st.lists(st.binary(max_size=80), max_size=6))
@settings(max_examples=150)
def test_no_bytes_crash_the_frame_decoder(pieces: list[bytes]) -> None:
    decoder = FrameDecoder(1024)
    try:
        for piece in pieces:
            decoder.feed(piece)
            while decoder.next_frame() is not None:
                pass
    except ProtocolError:
        pass
    assert decoder.pending_bytes <= sum(map(len, pieces))


@pytest.mark.slow
def test_mutated_frames_are_decoded_or_refused(rng: np.random.Generator) -> None:
    mutator = Mutator(rng, some_handles())
    for _ in range(N_DECODED):
        decoder = FrameDecoder()
        decoder.feed(mutator.frame())
        try:
            frame = decoder.next_frame()
        except ProtocolError:
            continue
        if frame is not None:
            decode(frame.body)


@pytest.mark.slow
@pytest.mark.watchdog(1800 if N_SENT > 100_000 else 120)
@pytest.mark.parametrize("trusts", [True, False])
def test_a_live_host_answers_and_does_not_grow(rng: np.random.Generator, trusts: bool) -> None:
    print(attack_host(N_SENT // 2, rng, trusts=trusts))
