"""Operands: proxies of arrays on a cluster among the arguments of an operation, and what stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrayhost.client.evaluating import ArrayProxy
from arrayhost.evaluation.operands import leaves, map_nested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["current", "is_of_cluster", "of_cluster", "shown", "with_elements"]


def is_of_cluster(value: Any) -> bool:
    """Whether a value is a proxy of an array on a cluster."""
    return isinstance(value, ArrayProxy) and value.evaluator is not None


def current(array: Any) -> Any:
    """The newest version of what a proxy shows, as Dask's array; inside one's own section, the section's ndarray."""
    section = array._source.section
    inside = None if section is None else section.shown(array._selection)
    return inside if inside is not None else array._selection.of(array._source.snapshot().array)


def of_cluster(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The proxies of arrays on a cluster anywhere among the arguments."""
    return [operand for operand in leaves(args, kwargs, ArrayProxy) if operand.evaluator is not None]


def shown(operands: Sequence[Any], bases: Mapping[Any, Any] | None = None) -> dict[int, Any]:
    """What each operand shows, all views of one array as of one version.

    Parameters
    ----------
    operands : sequence of ClusterArray
    bases : mapping of ClusterSource to Snapshot, optional
        Versions that are to be used instead of the newest.
    """
    snapshots: dict[Any, Any] = dict(bases or {})
    found: dict[int, Any] = {}
    for operand in operands:
        source = operand._source
        inside = None if source.section is None else source.section.shown(operand._selection)
        if inside is None:
            if source not in snapshots:
                snapshots[source] = source.snapshot()
            inside = operand._selection.of(snapshots[source].array)
        found[id(operand)] = inside
    return found


def _substituted(leaf: Any, elements: Mapping[int, Any]) -> Any:
    """An operand's elements in its place; those of arrays of hosts as copies."""
    if id(leaf) in elements:
        return elements[id(leaf)]
    return leaf._private_copy() if isinstance(leaf, ArrayProxy) else leaf


def with_elements(
    args: Sequence[Any], kwargs: Mapping[str, Any], elements: Mapping[int, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Arguments with what operands show in their places."""

    def replace(leaf: Any) -> Any:
        return _substituted(leaf, elements)

    return [map_nested(arg, replace) for arg in args], {key: map_nested(arg, replace) for key, arg in kwargs.items()}
