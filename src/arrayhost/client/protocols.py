"""What Python and other libraries ask of an array by special names, where ndarray's own method would not do.

The protocols that export memory without asking whether it is to be copied stand in `buffers`.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.buffers import section_memory
from arrayhost.core.layout import dtype_to_wire
from arrayhost.errors import ArrayHostError, format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from arrayhost.client.array import HostedArray

__all__ = ["METHODS"]

_CPU = (1, 0)  # DLPack's name for main memory
_PREVIEW = 6  # elements shown of each of the last two axes


def __dlpack__(
    self: HostedArray,
    *,
    stream: Any = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """Export the array by DLPack, for ``np.from_dlpack(a)``, ``torch.from_dlpack(a)`` and others.

    Parameters
    ----------
    stream, max_version, dl_device
        As for `numpy.ndarray.__dlpack__`.
    copy : bool, optional
        True: a private, consistent copy, writeable. None: the live memory, or a copy where this process has not mapped
        it. False: the live memory or BufferError.

    Raises
    ------
    BufferError
        The memory is read-only, as it is outside of ``a.write()``, and the consumer knows no such thing
        (``max_version`` below 1.0); or the dtype is none of DLPack's.

    Notes
    -----
    Without a copy, as with ``np.asarray(a)``, the consumer sees what others write. Inside ``with a.write() as x:`` the
    export is writeable, as that of `x` is, and must not be written to after the block.
    """
    memory = section_memory(self)
    if copy or (memory is None and not self.mapped):
        if copy is False:
            raise BufferError("this proxy is evaluated in the host: its memory cannot be exported without a copy")
        exported = self.copy("K")
    else:
        exported = self.__array__() if memory is None else memory
    # Only what was given: NumPy 2.0 knows nothing but the stream.
    options: dict[str, Any] = {"stream": stream, "max_version": max_version, "dl_device": dl_device}
    return exported.__dlpack__(**{name: value for name, value in options.items() if value is not None})


def __dlpack_device__(self: HostedArray) -> tuple[int, int]:
    """Tell that the memory is the processor's own, as ndarray's."""
    return _CPU


def __array_namespace__(self: HostedArray, *, api_version: str | None = None) -> ModuleType:
    """Return NumPy, whose functions take hosted arrays.

    Raises
    ------
    ValueError
        NumPy does not implement that version of the array API.
    """
    namespace: ModuleType = np.empty(0).__array_namespace__(api_version=api_version)  # type: ignore[arg-type]  # it checks
    return namespace


def __delitem__(self: HostedArray, index: Any) -> None:
    """Refuse, as ndarray does."""
    raise ValueError("cannot delete array elements")


def __dask_tokenize__(self: HostedArray) -> tuple[Any, ...]:
    """Identify the contents for Dask: host, array, view and version. Another token after each write."""
    layout = self.layout
    place = (layout.offset, layout.shape, layout.strides, repr(dtype_to_wire(layout.dtype)))
    source = self._source
    return ("arrayhost.HostedArray", source.link.host_id.hex(), source.ident, place, self.version)


def _repr_html_(self: HostedArray) -> str:
    """Show what it is, and a corner of it, in a notebook. Never raises for the state of the array or its host."""
    layout = self.layout
    index = (slice(1),) * (layout.ndim - 2) + (slice(_PREVIEW),) * min(layout.ndim, 2) + (...,)
    corner = layout.indexed(index) or layout
    try:
        version = str(self.version)
        values = np.array2string(self[index].copy())
    except ArrayHostError as error:
        version, values = "", f"({error})"
    facts = {
        "shape": layout.shape, "dtype": layout.dtype, "size": format_bytes(layout.nbytes),
        "host": self._source.link.address, "version": version,
    }  # fmt: skip
    rows = "".join(
        f"<tr><th style='text-align: left'>{name}</th><td style='text-align: left'>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    shown = "all elements" if corner.size == layout.size else f"the first elements, shape {corner.shape}"
    return (
        f"<table><caption>HostedArray</caption><tbody>{rows}</tbody></table>"
        f"<div>{html.escape(shown)}</div><pre>{html.escape(values)}</pre>"
    )


METHODS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        __dlpack__, __dlpack_device__, __array_namespace__, __delitem__, __dask_tokenize__, _repr_html_,
    )
}  # fmt: skip
