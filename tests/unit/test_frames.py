"""Frames: cut anywhere they come out whole, and what is none is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arrayhost.errors import ProtocolError
from arrayhost.wire.frames import HEADER_BYTES, MAX_BODY_BYTES, MAX_DESCRIPTORS, Frame, FrameDecoder, Kind, pack_frame

frames = st.builds(
    lambda kind, sequence, body, fds, files: Frame(int(kind), sequence, fds, min(fds, files), body),
    st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=300),
    st.integers(0, MAX_DESCRIPTORS), st.integers(0, MAX_DESCRIPTORS),
)  # fmt: skip


def packed(frame: Frame) -> bytes:
    return pack_frame(frame.kind, frame.sequence, frame.body, frame.n_descriptors, frame.n_attachments)


@given(st.lists(frames, max_size=6), st.integers(1, 40))
def test_a_stream_cut_anywhere_gives_its_frames(sent: list[Frame], step: int) -> None:
    stream = b"".join(map(packed, sent))
    decoder, received = FrameDecoder(), []
    for start in range(0, len(stream), step):
        decoder.feed(stream[start : start + step])
        while (frame := decoder.next_frame()) is not None:
            received.append(frame)
    assert received == sent
    assert decoder.pending_bytes == 0


def test_the_bytes_are_those_of_the_table() -> None:
    data = pack_frame(Kind.EVALUATE, 7, b"xyz", 3, 2)
    assert data == b"AH" + bytes([1, 23]) + struct.pack("<HHII", 3, 2, 7, 3) + b"xyz"
    assert len(data) == HEADER_BYTES + 3


def test_an_incomplete_frame_waits() -> None:
    decoder = FrameDecoder()
    data = pack_frame(Kind.RESULT, 1, b"12345")
    decoder.feed(data[:-1])
    assert decoder.next_frame() is None
    assert decoder.pending_bytes == len(data) - 1
    decoder.feed(data[-1:])
    assert decoder.next_frame() == Frame(Kind.RESULT, 1, 0, 0, b"12345")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((b"HT", 1, 1, 0, 0, 0, 0), "does not speak"),
        ((b"AH", 2, 1, 0, 0, 0, 0), "protocol version 2"),
        ((b"AH", 1, 0, 0, 0, 0, 0), "unknown kind 0"),
        ((b"AH", 1, 255, 0, 0, 0, 0), "unknown kind 255"),
        ((b"AH", 1, 1, MAX_DESCRIPTORS + 1, 0, 0, 0), "descriptors"),
        ((b"AH", 1, 1, 1, 2, 0, 0), "descriptors"),
        ((b"AH", 1, 1, 0, 0, 0, MAX_BODY_BYTES + 1), "bytes"),
    ],
)
def test_what_is_no_frame_is_refused_by_its_header(fields: tuple[object, ...], text: str) -> None:
    decoder = FrameDecoder()
    decoder.feed(struct.pack("<2sBBHHII", *fields))
    with pytest.raises(ProtocolError, match=text):
        decoder.next_frame()


def test_a_body_that_no_receiver_takes_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="more than"):
        pack_frame(Kind.RESULT, 1, bytes(MAX_BODY_BYTES + 1))


def test_kinds_have_numbers_of_their_own() -> None:
    assert len({int(kind) for kind in Kind}) == len(Kind.__members__)
