"""Handles: the small tokens that name a hosted array or object, on the wire and in pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrayhost.core.layout import Layout

__all__ = ["ArrayHandle", "ObjectHandle", "Written"]


@dataclass(frozen=True, slots=True)
class ArrayHandle:
    """Names one view of one hosted array.

    Attributes
    ----------
    ident : int
        The array in its host; never used again.
    slot, generation : int
        Its row of the control table, and which of the row's successive arrays it is.
    segment : int
        The segment that holds it, among others if they are small; never used again.
    start, n_bytes : int
        The array's own part of the segment. Nothing that names the array reaches outside of it.
    layout : Layout
        The view, from `start` on.
    """

    ident: int
    slot: int
    generation: int
    segment: int
    start: int
    n_bytes: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class ObjectHandle:
    """Names one hosted object.

    Attributes
    ----------
    ident : int
        The object in its host; never used again.
    typeid : str
        What it was registered as.
    methods : tuple of str
        What may be called, special methods included.
    attributes : bool
        Whether public attributes may be read and set.
    """

    ident: int
    typeid: str
    methods: tuple[str, ...]
    attributes: bool


@dataclass(frozen=True, slots=True)
class Written:
    """Stands in a write's result for one of the arrays written to: its caller has that already.

    Attributes
    ----------
    number : int
        Which of the operation's written arguments.
    """

    number: int
