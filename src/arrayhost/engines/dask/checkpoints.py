"""Checkpoints: versions of arrays in Zarr stores, from which lost chunks, and new clusters, get their elements.

Each array has a folder, and in it a complete Zarr array for each of its last two stored versions: ``v000000000012``.
A new one begins as hard links to the chunks of the one before; then the chunks that have changed are written, and when
all are there the folder is given its name. So a version in a folder is whole, whoever is killed. All that happens in
tasks: the workers must see the directory, the client need not.

A chunk that is stored has a new key, whose task reads it from the newest folder that holds these very elements, told by
a digest. With that the history of the chunk is cut: recovery reads one file instead of repeating all writes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np

from arrayhost.core.layout import dtype_from_wire, dtype_to_wire
from arrayhost.engines.dask.blocks import VersionGoneError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from arrayhost.engines.dask.link import ClusterLink
    from arrayhost.engines.dask.snapshots import ClusterSource, Snapshot

__all__ = ["LINEAGE", "after_commit", "folder_of", "found_in", "remove", "save", "stored_array"]

LINEAGE = 64
"""Versions after which the history of an array's chunks is cut."""

_UNNAMED = ".unnamed"
_KEPT_VERSIONS = 2
_ATTEMPTS = 3


# -- what a client does ------------------------------------------------------------------------------------------------


def after_commit(source: ClusterSource, snapshot: Snapshot, *, at_once: bool = False) -> None:
    """Store what was published, if it is time.

    With a directory that the user gave each version of a named array is stored before its write returns; others after
    so many versions that recovery would take long, or `at_once`, because nothing could make their elements again.
    """
    link = source.link
    if link.directory is None:
        return
    cut = at_once or snapshot.depth >= LINEAGE
    if cut or (link.durable and snapshot.name is not None):
        save(source, snapshot, cut=cut)


def save(source: ClusterSource, snapshot: Snapshot, *, cut: bool) -> None:
    """Store a version: the chunks that have changed since the last one that was stored.

    Parameters
    ----------
    cut : bool
        Let lost chunks be read from the store from now on.
    """
    for attempt in range(_ATTEMPTS):
        try:
            _save(source.link, snapshot, cut=cut)
        except VersionGoneError:
            # Others have stored so many versions meanwhile that the one to begin with is gone.
            if attempt == _ATTEMPTS - 1:
                raise
            source.forget()
            snapshot = source.snapshot()
        else:
            break
    if cut:
        source.forget()


def _save(link: ClusterLink, snapshot: Snapshot, *, cut: bool) -> None:
    client = link.client
    folder = folder_of(link, snapshot)
    numbers = sorted(snapshot.dirty)
    staged = f"{folder}/.{snapshot.version}-{uuid.uuid4().hex}"
    places = [snapshot.positions[n] for n in numbers]
    form = Form(snapshot.shape, snapshot.chunks, dtype_to_wire(snapshot.dtype))
    begun = client.submit(begin, folder, staged, snapshot.saved, form, places, pure=False)
    digests = [
        client.submit(write_chunk, staged, snapshot.corner(n), snapshot.futures[n], begun, pure=False) for n in numbers
    ]
    done = client.submit(finish, folder, staged, snapshot.version, places, digests, pure=False)
    link.wait([begun, done])
    stored = []
    if cut:
        stored = [
            client.submit(read_chunk, folder, snapshot.corner(n), digest, key=f"arrayhost-stored-{uuid.uuid4().hex}")
            for n, digest in zip(numbers, link.gather(digests), strict=True)
        ]
        link.wait(stored)
    link.call(
        "saved", ident=snapshot.ident, version=snapshot.version,
        blocks=[(n, snapshot.futures[n].key) for n in numbers],
        replacements=[(n, future.key) for n, future in zip(numbers, stored, strict=False)],
    )  # fmt: skip


def folder_of(link: ClusterLink, snapshot: Snapshot) -> str:
    """The folder of an array: that of its name, or a hidden one, which the next cluster takes away."""
    name = snapshot.name if link.durable and snapshot.name is not None else f"{_UNNAMED}/{snapshot.ident}"
    return f"{link.directory}/{name}"


def stored_array(about: Mapping[str, Any]) -> da.Array:
    """The array that `scan` has found, to be read by the workers."""
    chunks = tuple(tuple(axis) for axis in about["chunks"])
    name = f"arrayhost-stored-{uuid.uuid4().hex}"
    corners = da.core.slices_from_chunks(chunks)
    graph = {
        (name, *at): (read_chunk, about["folder"], corner, about["digests"][_place_text(at)])
        for at, corner in zip(np.ndindex(*map(len, chunks)), corners, strict=True)
    }
    return da.Array(graph, name, chunks, dtype=dtype_from_wire(about["dtype"]))


def found_in(link: ClusterLink, directory: str) -> dict[str, Any]:
    """What a directory holds of earlier clusters: the newest version of each named array."""
    future = link.client.submit(scan, directory, pure=False)
    link.wait([future])
    found: dict[str, Any] = link.gather(future)
    return found


# -- what workers do ---------------------------------------------------------------------------------------------------


def scan(directory: str) -> dict[str, Any]:
    """Find the newest whole version in each folder, and take away what nobody will finish or use."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / _UNNAMED, ignore_errors=True)
    found = {}
    for folder in sorted(root.iterdir()):
        versions = _versions(folder) if folder.is_dir() else []
        if versions:
            for unfinished in folder.glob(".*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            found[folder.name] = _about(folder, versions[0])
    return found


def _about(folder: Path, version: int) -> dict[str, Any]:
    return {"version": version, "folder": str(folder), **_attributes(_path(folder, version))}


def _attributes(store: Path) -> dict[str, Any]:
    import zarr

    return dict(zarr.open_array(store, mode="r").attrs)


def _versions(folder: Path) -> list[int]:
    """The versions that are stored, the newest first."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted((int(name[1:]) for name in names if name[0] == "v" and name[1:].isdigit()), reverse=True)


def _path(folder: str | Path, version: int) -> Path:
    return Path(folder) / f"v{version:012d}"


class Form(NamedTuple):
    """What is stored of an array beside its elements."""

    shape: tuple[int, ...]
    chunks: tuple[tuple[int, ...], ...]
    dtype: Any


def begin(folder: str, staged: str, saved: int, form: Form, dirty: Sequence[tuple[int, ...]]) -> None:
    """Make the folder of a version, with all chunks of the one before that have not changed.

    Raises
    ------
    VersionGoneError
        That one is not there any more.
    """
    import zarr

    Path(folder).mkdir(parents=True, exist_ok=True)
    array = zarr.create_array(
        store=staged, shape=form.shape, chunks=tuple(max(1, axis[0]) for axis in form.chunks),
        dtype=dtype_from_wire(form.dtype), compressors=None,
    )  # fmt: skip
    digests: dict[str, str] = {}
    clean = set(np.ndindex(*map(len, form.chunks))).difference(dirty)
    if clean:
        before = _path(folder, saved)
        try:
            digests = _attributes(before)["digests"]
            for at in clean:
                _link_or_copy(_chunk_file(before, at), _chunk_file(Path(staged), at))
        except FileNotFoundError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise VersionGoneError(f"version {saved} in {folder} is gone") from error
    array.attrs.update({"chunks": [list(axis) for axis in form.chunks], "dtype": form.dtype, "digests": digests})


def _link_or_copy(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(old, new)  # a file system without hard links


def _chunk_file(array: Path, at: Sequence[int]) -> Path:
    return Path(array, "c", *map(str, at))


def write_chunk(staged: str, corner: tuple[slice, ...], values: npt.NDArray[Any], begun: Any) -> str:
    """Write a chunk; return the digest of its elements."""
    import zarr

    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(staged, mode="r+")[corner] = values
    return _digest(values)


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def finish(folder: str, staged: str, version: int, places: Sequence[tuple[int, ...]], digests: Sequence[str]) -> None:
    """Give a version that is whole its name; keep the two newest."""
    import zarr

    array: Any = zarr.open_array(staged, mode="r+")
    news = {_place_text(at): digest for at, digest in zip(places, digests, strict=True)}
    array.attrs["digests"] = {**array.attrs["digests"], **news}
    try:
        os.rename(staged, _path(folder, version))
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        if not _path(folder, version).is_dir():
            raise
    for old in _versions(Path(folder))[_KEPT_VERSIONS:]:
        shutil.rmtree(_path(folder, old), ignore_errors=True)


def _place_text(at: Sequence[int]) -> str:
    return ".".join(map(str, at))


def read_chunk(folder: str, corner: tuple[slice, ...], digest: str) -> npt.NDArray[Any]:
    """Read a chunk from the newest version that has these elements.

    Raises
    ------
    VersionGoneError
        They have been replaced since.
    """
    import zarr

    for version in _versions(Path(folder)):
        try:
            values = np.asarray(zarr.open_array(_path(folder, version), mode="r")[corner])
        except (OSError, KeyError):
            continue  # taken away meanwhile
        if _digest(values) == digest:
            return values
    raise VersionGoneError(f"a chunk of {folder} has been replaced")


def remove(folder: str) -> None:
    """Take an array's folder away."""
    shutil.rmtree(folder, ignore_errors=True)
