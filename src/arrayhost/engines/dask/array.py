"""`ClusterArray`: the proxy of an array on a cluster, or of a view of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.client.array import HostedArray
from arrayhost.client.evaluating import evaluate
from arrayhost.core.layout import dtype_from_wire, dtype_to_wire
from arrayhost.engines.dask import sections
from arrayhost.engines.dask.addresses import ClusterAddress
from arrayhost.engines.dask.adopting import register_proxy
from arrayhost.engines.dask.assigning import rechunk
from arrayhost.engines.dask.computing import block_values, fetched
from arrayhost.engines.dask.evaluating import evaluate_on_cluster
from arrayhost.engines.dask.link import link_for
from arrayhost.engines.dask.operands import current
from arrayhost.engines.dask.printing import as_text
from arrayhost.engines.dask.selection import Selection
from arrayhost.engines.dask.snapshots import ClusterSource, source_for
from arrayhost.errors import GatherLimitError, UnsupportedError, format_bytes
from arrayhost.evaluation.operations import HOSTED, OPERATOR, Operation
from arrayhost.wire.hello import READ_ONLY, READ_WRITE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import dask.array as da
    import numpy.typing as npt

    from arrayhost.core.layout import Layout
    from arrayhost.engines.dask.link import ClusterLink

__all__ = ["ClusterArray"]

_GET_ITEM = Operation(OPERATOR, "getitem")
_SET_ITEM = Operation(OPERATOR, "setitem")


class ClusterArray(HostedArray):
    """A proxy of an array that lies in chunks on the workers of a Dask cluster.

    Used as every `HostedArray` is: basic indices give views that write through, what NumPy computes comes back by value
    if it is small, and stays on the cluster as an array of its own if it is large.

    Notes
    -----
    *Versions.* A write makes a new version of the chunks that it touches, and publishes it if nobody else has published
    one meanwhile; otherwise it is made again from the newest. A read shows one version whole. Cost: a few milliseconds
    for whatever is asked.

    Safety: any thread; forked children go on using it; pickles to a few hundred bytes, for any process that reaches the
    scheduler.
    """

    __slots__ = ("_fixed", "_selection")
    mapped = False
    evaluator = staticmethod(evaluate_on_cluster)
    _source: Any
    _selection: Selection
    _fixed: bool

    @classmethod
    def of(cls, source: ClusterSource, selection: Selection | None = None, *, fixed: bool = False) -> ClusterArray:
        """Make the proxy of a view; a `fixed` one cannot be written to."""
        proxy = object.__new__(cls)
        proxy._source = source
        proxy._selection = Selection.all(source.shape) if selection is None else selection
        proxy._layout, proxy._reference, proxy._fixed = None, None, fixed
        return proxy

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def layout(self) -> Layout:
        """Where the view would lie if the array were in one piece."""
        if self._layout is None:
            self._layout = self._selection.layout(self._source.dtype)
        return self._layout

    @property
    def base(self) -> ClusterArray | None:
        """The proxy of the whole array that this is a view of."""
        return None if self._selection.is_whole else ClusterArray.of(self._source)

    @property
    def flags(self) -> Any:
        """As of an array of this form in one piece."""
        form = self.layout.phantom()
        if self._fixed or self._source.link.mode == READ_ONLY:
            form.flags.writeable = False
        return form.flags

    @property
    def on_host(self) -> HostedArray:
        """The proxy itself: everything is evaluated by the cluster."""
        return self

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the blocks along each axis, as `dask.array.Array.chunks`. Cost: one round trip."""
        return self.to_dask().chunks

    def _with_layout(self, layout: Layout) -> HostedArray:
        raise UnsupportedError(
            "an array on a cluster keeps its shape: a.reshape(...) gives a copy of another shape; manager.put(...) it"
        )

    def _shows_same(self, index: Any, other: HostedArray) -> bool:
        return isinstance(other, ClusterArray) and self._selection.assigned(index) == other._selection

    def _state(self) -> list[Any]:
        state: list[Any] = evaluate_on_cluster(Operation(HOSTED, "state"), (self,), {})
        return state

    def _attributes(self, changes: dict[str, Any], removed: tuple[str, ...], mode: str) -> dict[str, Any]:
        if mode != "read":
            self._source.link.check_writable()
        found: dict[str, Any] = self._source.link.call(
            "attributes", ident=self._source.ident, changes=changes, removed=list(removed), mode=mode
        )
        return found

    def reference(self, link: Any, *, by_value: bool) -> Any:
        """What stands for the array in a request to a host: its values, or None for its pickle."""
        return self._small_copy() if by_value else None

    # -- Dask's side of it -------------------------------------------------------------------------------------------

    def to_dask(self) -> da.Array:
        """The newest version as a Dask array.

        Returns
        -------
        dask.array.Array
            Of this version for ever, whatever is written later. While it lives, the cluster keeps its chunks.
            Compute with it through `manager.client`.
        """
        return current(self)

    def rechunk(self, chunks: Any) -> ClusterArray:
        """Cut the whole array in another way, for everybody; a new version with the same elements. Returns itself."""
        if not self._selection.is_whole:
            raise UnsupportedError("rechunk() is for whole arrays; for a view: view.to_dask().rechunk(...)")
        rechunk(self._source, chunks)
        return self

    def persist(self) -> ClusterArray:
        """Return itself: the chunks of a hosted array are in the cluster's memory at all times."""
        return self

    def visualize(self, filename: str = "mydask", **kwargs: Any) -> Any:
        """Draw the graph of the newest version; see `dask.visualize`."""
        return self.to_dask().visualize(filename, **kwargs)

    def gather(self) -> npt.NDArray[Any]:
        """Bring all elements here, whatever their size, as an ndarray of one's own."""
        return self._private_copy()

    # -- elements ----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        part = self._selection.indexed(index)
        if part is None:
            return evaluate_on_cluster(_GET_ITEM, (self, index), {})
        view = ClusterArray.of(self._source, part, fixed=self._fixed)
        if part.axes or index is ... or (isinstance(index, tuple) and any(item is ... for item in index)):
            return view
        return evaluate_on_cluster(_GET_ITEM, (view, ()), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, ClusterArray) and value._source is self._source and self._shows_same(index, value):
            # The second half of a[2:4] += 1: the first has written already, as one atomic write.
            return
        evaluate(_SET_ITEM, (self, index, value), {})

    def _callmethod(self, methodname: str, args: Sequence[Any] = (), kwds: Mapping[str, Any] | None = None) -> Any:
        if methodname == "__getitem__":
            return self[args[0]]
        return super()._callmethod(methodname, args, kwds)

    def _iterated(self) -> Iterator[Any]:
        if len(self._selection.axes) == 1:
            return iter(self._small_copy())
        return (self[i] for i in range(self._selection.shape[0]))

    def _private_copy(self) -> npt.NDArray[Any]:
        def copied() -> npt.NDArray[Any]:
            elements = current(self)
            if isinstance(elements, np.ndarray):  # of this thread's own section
                return elements.copy()
            return block_values(self._source.link, elements)

        return fetched(self._source, copied)

    def _small_copy(self) -> npt.NDArray[Any]:
        """Copy the elements if that is within the limit for doing so unasked.

        Raises
        ------
        GatherLimitError
        """
        limit = self._source.link.gather_limit
        if self.layout.nbytes > limit:
            raise GatherLimitError("converting to an ndarray", self.layout.nbytes, limit)
        return self._private_copy()

    def __array__(  # type: ignore[override]  # takes dtype by name, too
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """Copy into an ndarray of this process: read-only unless a copy was asked for.

        Raises
        ------
        ValueError
            ``copy=False``: the elements are not here.
        GatherLimitError
            It is larger than the limit for what is done unasked; `gather` has none.
        """
        if copy is False:
            raise ValueError(
                "Unable to avoid copy while creating an array as requested: the elements are on workers of a cluster"
            )
        private = self._private_copy() if copy else self._small_copy()
        if dtype is not None and np.dtype(dtype) != private.dtype:
            return private.astype(dtype)
        private.flags.writeable = bool(copy)
        return private

    # -- sections ----------------------------------------------------------------------------------------------------

    def write(self, timeout: float | None = None) -> Any:
        """Open a section: ``with a.write() as x:`` works on a copy, which is published whole at the end of the block.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the array's lock.

        Returns
        -------
        WriteSection
            Its ``with`` target is a writeable ndarray of this process. What differs from before is written back at the
            end, as one new version; nothing if the block raises.

        Raises
        ------
        LockTimeoutError
            On entry.
        TransactionConflictError
            At the end of the block: this process did not keep the lock's lease (it was stopped, or the network was
            interrupted). Nothing was written.
        HostMemoryError
            The copy does not fit into this process, twice: at the end it is compared with what it was.

        Notes
        -----
        Cost: the elements of the view come here, and the blocks that differ go back; open it on a part where that will
        do. `manager.gather_limit` does not bound what is asked for in this way.
        """
        return sections.WriteSection(self, self._timeout(timeout))

    def read(self, timeout: float | None = None) -> Any:
        """Open a section that shows one version: ``with a.read() as x:``. It needs no lock: versions never change."""
        return sections.ReadSection(self)

    @staticmethod
    def _group(sections_: list[Any], timeout: float) -> Any:
        return sections.SectionGroup(sections_)

    @property
    def lock(self) -> Any:
        """The array's lock, with the methods of `threading.Lock`; a lease, which ends with the process that has it."""
        return sections.ClusterLock(self._source, self._source.link.lock_timeout)

    def apply(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with a copy of the array, here, and write the copy back as one new version.

        Called again, with a newer version, if somebody else has written meanwhile.
        """
        return evaluate_on_cluster(Operation(HOSTED, "apply"), (self, function, args, kwargs), {})

    # -- text and pickles --------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return as_text(self)

    def __repr__(self) -> str:
        layout = self.layout
        return (
            f"<HostedArray shape={layout.shape} dtype={layout.dtype} {format_bytes(layout.nbytes)} on the cluster at "
            f"{self._source.link.address}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        source = self._source
        source.export()
        link: ClusterLink = source.link
        parts = (link.address, source.ident, dtype_to_wire(source.dtype), self._selection.to_wire(), self._fixed)
        return _from_handle, (*parts, *(() if link.mode == READ_WRITE else (link.mode,)))

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        source = self._source
        return ("arrayhost.ClusterArray", source.link.epoch, source.ident, self._selection.to_wire(), self.version)


def _fact(name: str) -> property:
    return property(lambda self: getattr(self.layout, name), doc=getattr(np.ndarray, name).__doc__)


for _name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
    setattr(ClusterArray, _name, _fact(_name))


def _from_handle(
    address: str, ident: str, dtype: Any, selection: Any, fixed: bool, mode: str = READ_WRITE
) -> ClusterArray:
    """Unpickle: find the way to the cluster. The array is leased when the proxy is first used."""
    link = link_for(ClusterAddress.parse(address), mode)
    view = Selection.from_wire(selection)
    return ClusterArray.of(source_for(link, ident, view.whole, dtype_from_wire(dtype)), view, fixed=fixed)


register_proxy(ClusterArray.of)
