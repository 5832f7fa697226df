"""Operations that write: chunk by chunk where that can be done, else on a copy of all elements that is written back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from arrayhost.client.evaluating import ArrayProxy
from arrayhost.engines.dask.assigning import assign
from arrayhost.engines.dask.commits import Update, commit
from arrayhost.engines.dask.computing import block_values, fetched
from arrayhost.engines.dask.operands import is_of_cluster, of_cluster, shown, with_elements
from arrayhost.engines.dask.selection import Selection
from arrayhost.errors import GatherLimitError, ReadOnlyError, UnsupportedError, WouldDeadlock
from arrayhost.evaluation.operations import FUNCTION, METHOD, OPERATOR, SET, UFUNC, Operation, apply
from arrayhost.evaluation.tables import IN_PLACE_OPERATORS, written_arguments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arrayhost.engines.dask.snapshots import ClusterSource, Snapshot

    # The versions that a write begins with. What it reads of these arrays has to be of the same ones: of an older one,
    # it would undo what others have written since.
    Bases = Mapping[ClusterSource, Snapshot]

__all__ = ["write"]


def write(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any], *, gather: bool
) -> Any:
    """Carry out an operation that writes to arrays of a cluster.

    Returns
    -------
    object
        What NumPy returns: the targets themselves where it returns those.

    Raises
    ------
    GatherLimitError
        It needs all elements in one place, and they are too many for doing that unasked.
    UnsupportedError
        It would change what an array on a cluster cannot change; or the targets are of several engines.
    """
    if any(
        isinstance(leaf, ArrayProxy) and leaf.evaluator is None for leaf in written_arguments(operation, args, kwargs)
    ):
        raise UnsupportedError("one operation cannot write to arrays of a host and to arrays of a cluster")
    _check_possible(operation, targets)
    if any(target._source.section is not None for target in targets):
        return _write_in_section(operation, args, kwargs, targets)
    link = targets[0]._source.link

    def attempt() -> tuple[list[Update], Any]:
        plain = None if gather else _distributed(operation, args, kwargs, targets)
        return plain if plain is not None else _gathered(operation, args, kwargs, targets, gather=gather)

    sources = {operand._source for operand in of_cluster(args, kwargs)}
    return commit(link, lambda: fetched(list(sources), attempt))


_IMPOSSIBLE = frozenset(["resize", "setflags", "setfield", "__setstate__"])
_SETTABLE = frozenset(["real", "imag", "flat"])


def _check_possible(operation: Operation, targets: Sequence[Any]) -> None:
    kind, name = operation[:2]
    if (kind == METHOD and name in _IMPOSSIBLE) or (kind == SET and name not in _SETTABLE):
        raise UnsupportedError(f"{name} of an array on a cluster cannot be changed: make another array")
    for target in targets:
        target._source.link.check_writable()
        if target._fixed:
            raise ReadOnlyError("assignment destination is read-only: a copy where NumPy has a view;")


def _write_in_section(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any]
) -> Any:
    """Write to the ndarray of this thread's own section."""
    for target in targets:
        section = target._source.section
        if section is None or not section.writeable or section.shown(target._selection) is None:
            raise WouldDeadlock("this thread is inside a section on the array that does not cover this write")
    elements = shown(of_cluster(args, kwargs))
    elements = {
        key: value if isinstance(value, np.ndarray) else block_values(targets[0]._source.link, value)
        for key, value in elements.items()
    }
    result = apply(operation, *with_elements(args, kwargs, elements))
    return _targets_in(result, targets, elements)


def _targets_in(result: Any, targets: Sequence[Any], elements: Mapping[int, Any]) -> Any:
    """A result with the targets themselves in the places of the ndarrays that stood for them."""
    by_memory = {id(elements[id(target)]): target for target in targets}
    if isinstance(result, tuple):
        return tuple(by_memory.get(id(part), part) for part in result)
    return by_memory.get(id(result), result)


# -- distributed ones --


def _distributed(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any]
) -> tuple[list[Update], Any] | None:
    """Updates made chunk by chunk; None where that cannot be done."""
    if len({target._source for target in targets}) < len(targets):
        return None
    bases = {target._source: target._source.snapshot() for target in targets}
    kind, name, variant, _ = operation
    if (kind, name) in ((OPERATOR, "setitem"), (METHOD, "__setitem__")):
        return _set_item(args[0], args[1], args[2], bases)
    if kind == METHOD and name == "fill":
        return [_assigned(args[0], args[0]._selection, args[1], bases)], None
    if kind == METHOD and name.startswith("__i") and name[2:-2] in IN_PLACE_OPERATORS:
        kind, name = OPERATOR, name[2:-2]
    if kind == OPERATOR and name in IN_PLACE_OPERATORS:
        binary = {"iand": "and_", "ior": "or_"}.get(name, name[1:])
        return _computed(Operation(OPERATOR, binary), args, {}, targets, bases)
    if kind == UFUNC and variant == "__call__" and set(kwargs) <= {"out", "where"}:
        return _computed(operation, args, kwargs, targets, bases)
    if kind == FUNCTION and name == "numpy:copyto" and len(args) <= 2 and set(kwargs) <= {"src", "where", "casting"}:
        return _copy_to(args[0], args[1] if len(args) > 1 else kwargs["src"], kwargs, bases)
    return None


def _assigned(target: Any, selection: Selection, value: Any, bases: Bases) -> Update:
    """A value, or what a proxy among the values shows, written to a part of a target's array."""
    (found,), _ = with_elements([value], {}, _elements([value, target], bases))
    return assign(target._source, bases[target._source], selection, found)


def _elements(parts: Sequence[Any], bases: Bases) -> dict[int, Any]:
    return shown(of_cluster(list(parts), {}), bases)


def _set_item(target: Any, index: Any, value: Any, bases: Bases) -> tuple[list[Update], Any] | None:
    selection = target._selection.assigned(index)
    if selection is not None:
        return [_assigned(target, selection, value, bases)], None
    mask = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    is_mask = getattr(mask, "shape", None) == target.shape and getattr(mask, "dtype", None) == np.dtype(bool)
    if not is_mask or np.ndim(value) or isinstance(value, ArrayProxy):
        return None
    base = bases[target._source]
    elements = _elements([mask, target], bases)
    where = elements.get(id(mask), mask)
    new = da.where(where, np.asarray(value).astype(base.dtype), elements[id(target)])
    return [assign(target._source, base, target._selection, new)], None


def _computed(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any], bases: Bases
) -> tuple[list[Update], Any] | None:
    """What an operation computes, written to its targets: in-place operators, ufuncs with ``out``."""
    outs = kwargs.get("out", tuple(targets))
    outs = outs if isinstance(outs, tuple) else (outs,)
    if any(out is None or not is_of_cluster(out) for out in outs):
        return None
    where = kwargs.get("where", True)
    elements = _elements([*args, *outs, where], bases)
    plain, _ = with_elements(args, {}, elements)
    if not any(isinstance(part, da.Array) for part in plain) and operation.kind != UFUNC:
        return None
    try:
        found = apply(operation, plain, {})
    except (TypeError, NotImplementedError, ValueError):
        return None  # NumPy says what is wrong, or can do it
    found = found if isinstance(found, tuple) else (found,)
    updates = []
    for out, value in zip(outs, found, strict=True):
        source, base = out._source, bases[out._source]
        _check_fits(value, out, base.dtype)
        if where is not True:
            value = da.where(elements.get(id(where), where), value, elements[id(out)]).astype(base.dtype)
        updates.append(assign(source, base, out._selection, value))
    return updates, outs if len(outs) > 1 else outs[0]


def _check_fits(value: Any, target: Any, dtype: np.dtype[Any]) -> None:
    """Raise what NumPy raises for an output of another shape, or of a kind that values cannot be cast to."""
    np.copyto(np.empty(0, dtype), np.empty(0, value.dtype), casting="same_kind")
    if np.broadcast_shapes(value.shape, target.shape) != target.shape or len(value.shape) > len(target.shape):
        raise ValueError(
            f"non-broadcastable output operand with shape {target.shape} doesn't match the broadcast shape "
            f"{value.shape}"
        )


def _copy_to(target: Any, value: Any, kwargs: Mapping[str, Any], bases: Bases) -> tuple[list[Update], Any]:
    where = kwargs.get("where", True)
    elements = _elements([value, target, where], bases)
    source, base = target._source, bases[target._source]
    new = elements.get(id(value), value)
    if isinstance(new, ArrayProxy):
        new = new._private_copy()
    if isinstance(new, (da.Array, np.ndarray, np.generic)):
        np.copyto(np.empty(0, base.dtype), np.empty(0, new.dtype), casting=kwargs.get("casting", "same_kind"))
    else:
        np.copyto(np.empty(np.shape(new), base.dtype), new, casting=kwargs.get("casting", "same_kind"))
    if where is not True:
        new = da.where(elements.get(id(where), where), new, elements[id(target)]).astype(base.dtype)
    return [assign(source, base, target._selection, new)], None


# -- the others: on a copy of everything --


def _gathered(
    operation: Operation, args: Sequence[Any], kwargs: Mapping[str, Any], targets: Sequence[Any], *, gather: bool
) -> tuple[list[Update], Any]:
    """Carry out on ndarrays of this process, and write these back whole.

    Targets that are views of one array are views of one copy of it, so that they overlap as they should.
    """
    link = targets[0]._source.link
    operands = of_cluster(args, kwargs)
    sources = {id(operand._source): operand._source for operand in operands}
    bases = {key: source.snapshot() for key, source in sources.items()}
    written = {id(target._source) for target in targets}
    shared = {key for key in written if len({id(op) for op in operands if id(op._source) == key}) > 1}
    n_bytes = sum(
        int(bases[id(op._source)].array.nbytes) if id(op._source) in shared else op.layout.nbytes for op in operands
    )
    if n_bytes > link.gather_limit and not gather:
        raise GatherLimitError(operation.name.replace(":", "."), n_bytes, link.gather_limit)
    wholes = {key: block_values(link, bases[key].array) for key in shared}
    elements = {
        id(op): op._selection.of(wholes[id(op._source)])
        if id(op._source) in shared
        else block_values(link, op._selection.of(bases[id(op._source)].array))
        for op in operands
    }
    result = apply(operation, *with_elements(args, kwargs, elements))
    updates = []
    for key in written:
        source, base = sources[key], bases[key]
        if key in shared:
            updates.append(assign(source, base, Selection.all(base.shape), wholes[key]))
        else:
            (target,) = {id(op): op for op in operands if id(op._source) == key}.values()
            updates.append(assign(source, base, target._selection, elements[id(target)]))
    return updates, _targets_in(result, targets, elements)
