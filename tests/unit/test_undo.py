"""Undo records as bytes: read back in full, or not at all."""

import numpy as np
import pytest

from arrayhost.host.undo import UndoRecord, decode, encode

OLD = bytes(range(37))
RECORD = UndoRecord(123, 4, 5, 6, 7, OLD)
DATA = encode(RECORD) + OLD


def test_a_record_is_read_back_and_what_follows_it_is_ignored() -> None:
    assert decode(DATA) == RECORD
    assert decode(DATA + b"of a longer one") == RECORD
    empty = RECORD._replace(old=b"")
    assert decode(encode(empty)) == empty


@pytest.mark.parametrize("n", range(len(DATA)))
def test_a_truncated_record_is_none(n: int) -> None:
    assert decode(DATA[:n]) is None
    assert decode(DATA[:n] + bytes(len(DATA) - n)) is None


def test_a_flipped_bit_is_noticed() -> None:
    for bit in range(8 * len(DATA)):
        changed = np.frombuffer(DATA, np.uint8).copy()
        changed[bit // 8] ^= 1 << bit % 8
        assert decode(changed.tobytes()) is None
