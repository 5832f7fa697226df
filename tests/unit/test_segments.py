"""Segments: sealed, on huge pages where the kernel can, and filled as NumPy fills."""

import ctypes
import fcntl
import gc
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arrayhost.core.layout import Layout
from arrayhost.errors import HostMemoryError, ProtocolError, UnsupportedDTypeError
from arrayhost.memory.filling import WritePiece, copied, filled, layout_of, view_of
from arrayhost.memory.segments import (
    HUGE_PAGE,
    CreatedSegment,
    Mapping,
    check_sealed,
    create_file,
    create_segment,
    map_segment,
    segment_size,
)
from tests.support import assert_same

DTYPES = ["?", "i1", ">u2", "i8", "f4", "f8", ">f8", "c16", "f2", "S5", "U3", "M8[ns]", "m8[s]", "V3",
          [("a", "i1"), ("b", "f8"), ("c", "S2")]]  # fmt: skip
SHAPES = [(), (0,), (5,), (3, 0, 2), (4, 5, 6), (300_007,), (701, 1009)]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def kernel_collapses() -> bool:
    """Whether this kernel makes huge pages of shared memory: asked without arrayhost's help."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    room = mmap.mmap(-1, 2 * HUGE_PAGE)
    buffer = (ctypes.c_char * (2 * HUGE_PAGE)).from_buffer(room)
    first = ctypes.addressof(buffer)
    start = -(-first // HUGE_PAGE) * HUGE_PAGE
    fd = os.memfd_create("probe")
    os.ftruncate(fd, HUGE_PAGE)
    map_fixed = 0x10
    mapped = libc.mmap(start, HUGE_PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | map_fixed, fd, 0)
    os.close(fd)
    assert mapped == start
    buffer[start - first] = b"x"
    result = libc.madvise(start, HUGE_PAGE, 25)  # MADV_COLLAPSE
    del buffer
    room.close()
    return result == 0


def huge_kib(address: int) -> int:
    """Kilobytes on huge pages in the mapping at an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(match[1], 16) <= address < int(match[2], 16)
        elif here and line.startswith("ShmemPmdMapped:"):
            return int(line.split()[1])
    raise AssertionError("no such mapping")


def own_segment(n_bytes: int, write_piece: WritePiece) -> CreatedSegment:
    return create_segment(n_bytes, write_piece=write_piece)


def contents(created: tuple[CreatedSegment, Layout]) -> np.ndarray:
    segment, layout = created
    os.close(segment.fd)
    view = view_of(segment.mapping.reader, layout)
    assert not view.flags.writeable
    return view


def test_a_segment_can_neither_shrink_nor_grow() -> None:
    fd, mapping = create_segment(5000)
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        for size in (0, 4999, 10_000):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        check_sealed(fd)
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert not mapping.reader.any()


def test_a_file_that_could_shrink_is_refused(tmp_path: Path) -> None:
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    plain = os.open(tmp_path / "x", os.O_CREAT | os.O_RDWR)
    try:
        for fd in (unsealed, plain):
            with pytest.raises(ProtocolError):
                check_sealed(fd)
    finally:
        os.close(unsealed)
        os.close(plain)


def test_a_mapping_beyond_its_file_is_refused() -> None:
    fd = create_file(4096, "test")
    try:
        for n_bytes in (4097, 0, -1):
            with pytest.raises(ProtocolError):
                map_segment(fd, n_bytes)
    finally:
        os.close(fd)


def test_two_mappings_show_the_same_memory_and_the_reader_is_read_only() -> None:
    fd, first = create_segment(100)
    second = map_segment(fd, 100, writeable=False)
    os.close(fd)
    first.writer[7] = 42
    assert second.reader[7] == 42
    assert first.covers(first.address + 99)
    assert not first.covers(first.address + 100)
    for view in (first.reader, second.reader, second.writer):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True


def test_memory_lives_as_long_as_an_array_of_it() -> None:
    fd, mapping = create_segment(HUGE_PAGE)
    os.close(fd)
    address, view = mapping.address, mapping.reader[5:10]
    del mapping
    gc.collect()
    assert not view.any()
    assert huge_kib(address) >= 0
    del view
    gc.collect()
    with pytest.raises(AssertionError, match="no such mapping"):
        huge_kib(address)


def resident_shared() -> int:
    """Bytes of shared memory that are mapped by this process's page table."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssShmem"))


def test_pages_that_are_let_go_come_back_as_they_were() -> None:
    created = create_segment(8 * HUGE_PAGE)
    os.close(created.fd)
    memory = created.mapping.writer
    memory[:] = np.arange(memory.size) % 251
    before = resident_shared()
    created.mapping.let_go(HUGE_PAGE + 5, 7 * HUGE_PAGE - 5)
    assert before - resident_shared() >= 5 * HUGE_PAGE
    assert_same(memory.copy(), (np.arange(memory.size) % 251).astype(np.uint8))
    memory[3 * HUGE_PAGE] = 99
    created.mapping.let_go(0, memory.size)
    assert memory[3 * HUGE_PAGE] == 99


def test_sizes() -> None:
    assert [segment_size(n) for n in (0, 1, 100, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 1)] == [
        8, 8, 100, HUGE_PAGE - 1, HUGE_PAGE, 2 * HUGE_PAGE,
    ]  # fmt: skip


def test_large_segments_lie_on_huge_pages_where_the_kernel_can() -> None:
    if not kernel_collapses():
        pytest.skip("this kernel does not make huge pages of shared memory")
    fd, mapping = create_segment(10 * HUGE_PAGE)
    os.close(fd)
    assert mapping.address % HUGE_PAGE == 0
    assert huge_kib(mapping.address) == 10 * HUGE_PAGE // 1024


@pytest.mark.parametrize("by_argument", [True, False])
def test_all_works_without_huge_pages(monkeypatch: pytest.MonkeyPatch, by_argument: bool) -> None:
    if not by_argument:
        monkeypatch.setenv("ARRAYHOST_HUGE_PAGES", "0")
    enabled = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    (fd, mapping), layout = filled(
        (3 * HUGE_PAGE,),
        np.dtype("f4"),
        "C",
        1.5,
        lambda n_bytes, write_piece: create_segment(n_bytes, write_piece=write_piece, huge_pages=not by_argument),
    )
    os.close(fd)
    assert (view_of(mapping.reader, layout) == np.float32(1.5)).all()
    if not enabled.exists() or "[always]" not in enabled.read_text():
        assert huge_kib(mapping.address) == 0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_filled_as_numpy_fills(dtype: Any, shape: tuple[int, ...], order: str) -> None:
    dtype = np.dtype(dtype)
    if dtype.names is not None:
        value: Any = np.array((1, 2.5, b"xy"), dtype)
    elif dtype.kind == "V":
        value = np.void(b"abc")
    else:
        value = np.array(1).astype(dtype)[()]
    expected = np.empty(shape, dtype, order)  # type: ignore[call-overload]  # the stubs know literals only
    expected[...] = value
    result = contents(filled(shape, dtype, order, value, own_segment))
    # Bytes, because comparing a million records takes NumPy seconds.
    assert (result.dtype, result.shape) == (expected.dtype, shape)
    assert result.tobytes("A") == expected.tobytes("A")
    if result.size:
        assert result.strides == expected.strides
    zeros = contents(filled(shape, dtype, order, np.zeros((), dtype), own_segment))
    assert zeros.dtype == dtype
    assert not zeros.tobytes().strip(b"\0")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_copied_as_numpy_copies(dtype: Any, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.arange(n_bytes, dtype=np.uint8) % (2 if dtype.kind == "b" else 97)
    if dtype.kind == "U":
        raw = (np.arange(n_bytes // 4, dtype=np.uint32) % 97).view(np.uint8)
    base = np.ndarray(shape, dtype, raw) if n_bytes else np.zeros(shape, dtype)
    for array in (base, np.asfortranarray(base) if shape else base, base[::-2] if shape else base, base.T):
        result = contents(copied(array, own_segment))
        assert (result.dtype, result.shape) == (array.dtype, array.shape)
        assert result.tobytes() == array.tobytes()
        assert result.flags.f_contiguous == array.copy("A").flags.f_contiguous


def test_a_read_only_source_and_a_layout_of_a_view() -> None:
    source = np.broadcast_to(np.arange(4.0), (3, 4))
    (fd, mapping), layout = copied(source, own_segment)
    os.close(fd)
    whole = view_of(mapping.writer, layout)
    part = whole[::-1, 1:3]
    part_layout = layout_of(part, mapping)
    assert_same(view_of(mapping.reader, part_layout), source[::-1, 1:3])
    part_layout.check(mapping.n_bytes)
    part[...] = -1
    assert whole[2].tolist() == [0, -1, -1, 3]


def test_minus_zero_is_not_zero() -> None:
    assert np.signbit(contents(filled((3,), np.dtype("f8"), "C", -0.0, own_segment))).all()


def test_a_value_that_does_not_fit_allocates_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ValueError, match="could not convert"):
        filled((5,), np.dtype("f8"), "C", "text", own_segment)
    with pytest.raises(OverflowError):
        filled((5,), np.dtype("i1"), "C", 300, own_segment)
    with pytest.raises(UnsupportedDTypeError):
        filled((5,), np.dtype(object), "C", None, own_segment)
    with pytest.raises(UnsupportedDTypeError):
        copied(np.array([None]), own_segment)
    with pytest.raises(HostMemoryError):
        filled((2**50,), np.dtype("f8"), "C", 1, own_segment)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failing_filler_leaves_no_descriptor() -> None:
    def fail(mapping: Mapping, start: int, stop: int) -> None:
        if start >= 32 * HUGE_PAGE:
            raise KeyError("filler")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyError, match="filler"):
        create_segment(40 * HUGE_PAGE, write_piece=fail)
    assert len(os.listdir("/proc/self/fd")) == before
