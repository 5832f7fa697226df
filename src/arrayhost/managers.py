"""The names of :mod:`multiprocessing.managers`: a program that imports them from here needs no other change."""

from multiprocessing.managers import BaseProxy, NamespaceProxy  # type: ignore[attr-defined]  # missing in the stubs

from arrayhost.manager import ArrayManager

__all__ = ["ArrayManager", "BaseManager", "BaseProxy", "NamespaceProxy"]

BaseManager = ArrayManager
