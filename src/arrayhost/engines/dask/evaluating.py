"""How an operation on arrays of a cluster is evaluated: distributed, on a copy of all elements here, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from arrayhost.client.evaluating import ArrayProxy
from arrayhost.client.evaluating import evaluate as evaluate_on_hosts
from arrayhost.engines.dask import adopting, writing
from arrayhost.engines.dask.computing import block_values, fetched, values
from arrayhost.engines.dask.functions import OTHER_SCALARS, READ_ONLY_RESULTS, distributed_form
from arrayhost.engines.dask.operands import is_of_cluster, of_cluster, shown, with_elements
from arrayhost.engines.dask.updates import HOSTED_OPERATIONS
from arrayhost.errors import GatherLimitError
from arrayhost.evaluation.operands import foreign_as_ndarrays, leaves, map_nested
from arrayhost.evaluation.operations import GET, HOSTED, METHOD, Operation, apply
from arrayhost.evaluation.tables import written_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

__all__ = ["evaluate_on_cluster"]

_TRANSPOSING = frozenset(["T", "mT"])
_ONE_ELEMENT = frozenset(["__bool__", "__int__", "__float__", "__complex__", "__index__"])


def evaluate_on_cluster(operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Evaluate an operation of which an operand lies on a cluster.

    Parameters
    ----------
    operation : Operation
    args, kwargs
        As for `client.evaluating.evaluate`. Methods take ``gather=True``: bring all elements here, whatever their size.

    Raises
    ------
    GatherLimitError
        It needs all elements in one place, and they are too many for doing that unasked.
    """
    options = dict(kwargs)
    gather = bool(options.pop("gather", False)) if operation.kind == METHOD else False
    if operation.kind == HOSTED:
        return HOSTED_OPERATIONS[operation.name](*args, **options)
    if operation.kind == GET:
        return _attribute(args[0], operation)
    if operation.kind == METHOD and operation.name in _VIEWS:
        view = _VIEWS[operation.name](args[0], *args[1:], **options)
        if view is not None:
            return view
    args, options = foreign_as_ndarrays(list(args)), foreign_as_ndarrays(options)
    written = written_arguments(operation, args, options)
    targets = [target for target in written if is_of_cluster(target)]
    if targets:
        return writing.write(operation, args, options, targets, gather=gather)
    operands = of_cluster(args, options)
    sources = {id(operand._source): operand._source for operand in operands}
    if any(isinstance(target, ArrayProxy) for target in written):
        copies = {id(operand): operand._small_copy() for operand in operands}
        return evaluate_on_hosts(operation, *with_elements(args, options, copies))

    def evaluate() -> Any:
        return _read(operation, args, options, operands, here=bool(written), gather=gather)

    return fetched(list(sources.values()), evaluate)


def _attribute(array: Any, operation: Operation) -> Any:
    if operation.name in _TRANSPOSING:
        if operation.name == "mT" and array.ndim < 2:
            raise ValueError("matrix transpose with ndim < 2 is undefined")
        order = list(range(array.ndim))
        order = order[::-1] if operation.name == "T" else [*order[:-2], order[-1], order[-2]]
        return type(array).of(array._source, array._selection.transposed(order), fixed=array._fixed)
    if operation.name in ("real", "imag"):
        if operation.name == "real" and array.dtype.kind != "c":
            return array
        return fetched(array._source, lambda: _read(operation, (array,), {}, [array], here=False, gather=False))
    return getattr(array, operation.name)


# -- methods whose results are views --------------------------------------------------------------------------------


def _transpose(array: Any, *axes: Any) -> Any:
    order = axes[0] if len(axes) == 1 and not isinstance(axes[0], (int, np.integer)) else axes
    if order is None or order == ():
        order = range(array.ndim)[::-1]
    # NumPy checks the axes, and says what is wrong with them.
    return _reordered(array, lambda form: form.transpose(tuple(order)), tuple(order))


def _swapaxes(array: Any, axis1: int, axis2: int) -> Any:
    order = list(range(array.ndim))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return _reordered(array, lambda form: form.swapaxes(axis1, axis2), tuple(order))


def _reordered(array: Any, check: Callable[[npt.NDArray[Any]], Any], order: tuple[int, ...]) -> Any:
    check(array.layout.phantom())
    order = tuple(axis % array.ndim for axis in order)
    return type(array).of(array._source, array._selection.transposed(order), fixed=array._fixed)


def _squeeze(array: Any, axis: Any = None) -> Any:
    form = array.layout.phantom().squeeze(axis)
    if form.ndim == array.ndim:
        return array
    chosen = range(array.ndim) if axis is None else [n % array.ndim for n in np.atleast_1d(axis)]
    index = tuple(0 if n in chosen and array.shape[n] == 1 else slice(None) for n in range(array.ndim))
    return array[(*index, ...)]


_VIEWS: dict[str, Callable[..., Any]] = {"transpose": _transpose, "swapaxes": _swapaxes, "squeeze": _squeeze}


# -- reads -----------------------------------------------------------------------------------------------------------


def _read(
    operation: Operation,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    operands: list[Any],
    *,
    here: bool,
    gather: bool,
) -> Any:
    """Evaluate on the newest versions.

    Parameters
    ----------
    here : bool
        Evaluate in this process: it writes to ndarrays of the caller's.
    """
    link = operands[0]._source.link
    elements = shown(operands)
    form = None if here or gather else distributed_form(operation, args, kwargs)
    failure: Exception | None = None
    if form is not None:
        try:
            lazy = apply(form, *with_elements(args, kwargs, elements))
        except Exception as error:  # Dask lacks it, or it is wrong: NumPy says what is, if it may be asked
            failure = error
        else:
            return _results(link, operation, lazy)
    if operation.kind == METHOD and operation.name in _ONE_ELEMENT and operands[0].size != 1:
        return getattr(np.zeros(2, operands[0].dtype), operation.name)()  # raises what ndarray raises
    n_bytes = sum(operand.layout.nbytes for operand in {id(operand): operand for operand in operands}.values())
    if n_bytes > link.gather_limit and not gather:
        raise GatherLimitError(_called(operation), n_bytes, link.gather_limit) from failure
    copies = {key: _copied(link, value) for key, value in elements.items()}
    result = apply(operation, *with_elements(args, kwargs, copies))
    return _without_writing(result, copies.values())


def _copied(link: Any, value: Any) -> npt.NDArray[Any]:
    return np.array(value) if isinstance(value, np.ndarray) else block_values(link, value)


def _called(operation: Operation) -> str:
    name = operation.name.replace(":", ".").replace("numpy.", "np.", 1)
    return f"{name}.{operation.variant}" if operation.variant not in ("", "__call__") else name


def _without_writing(result: Any, copies: Any) -> Any:
    """Results that share the copies' memory are views to NumPy: to write to them would change nothing."""

    def locked(leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray) and any(np.may_share_memory(leaf, copy) for copy in copies):
            leaf.flags.writeable = False
        return leaf

    if isinstance(result, np.ndarray):
        return locked(result)
    return map_nested(result, locked)


def _results(link: Any, operation: Operation, lazy: Any) -> Any:
    """Bring small results here and leave large ones on the cluster, as arrays of their own."""
    found = leaves([lazy], {}, da.Array)
    unknown = [array for array in found if not array.nbytes >= 0]
    replaced: dict[int, Any] = {id(array): adopting.adopt_result(link, array) for array in unknown}
    small = [array for array in found if array.nbytes <= link.result_limit]
    replaced.update(zip(map(id, small), values(link, small) if small else (), strict=True))
    for array in found:
        if id(array) not in replaced:
            replaced[id(array)] = adopting.adopt(link, array)
    fixed = operation.name in READ_ONLY_RESULTS

    def received(leaf: Any) -> Any:
        value = replaced.get(id(leaf), leaf)
        if fixed and isinstance(value, np.ndarray):
            value.flags.writeable = False
        elif fixed and is_of_cluster(value):
            value._fixed = True
        return value

    result = map_nested(lazy, received)
    convert = OTHER_SCALARS.get(operation.name)
    return convert(result) if convert is not None and isinstance(result, np.generic) else result
