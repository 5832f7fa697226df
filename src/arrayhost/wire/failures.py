"""Exceptions on the wire: their own type where that is safe, a `RemoteError` otherwise."""

from __future__ import annotations

import builtins
import pickle
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost import errors
from arrayhost.core.callers import calling_frame
from arrayhost.errors import ProtocolError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["describe", "describe_warnings", "rebuild", "warn_caller"]


def _exceptions_of(namespace: Mapping[str, Any], root: type) -> dict[str, type]:
    return {
        name: value
        for name, value in namespace.items()
        if isinstance(value, type) and issubclass(value, root) and not name.startswith("_")
    }


# Rebuilding one of these runs no code but its own constructor.
_SAFE: dict[str, type] = {
    f"{module}:{name}": value
    for module, namespace in (
        ("numpy", vars(np.exceptions)),
        ("numpy.linalg", {"LinAlgError": np.linalg.LinAlgError}),
        ("arrayhost", errors.errors_by_name()),
        ("builtins", vars(builtins)),
    )
    for name, value in _exceptions_of(namespace, BaseException).items()
}
_NAMES = {value: name for name, value in reversed(_SAFE.items())}
_PLAIN = (str, int, float, bool, bytes, type(None))


def describe(error: BaseException, *, with_traceback: bool, allow_pickle: bool) -> list[Any]:
    """Turn an exception into values that travel.

    Parameters
    ----------
    with_traceback : bool
        Add the host's traceback: worth it where user code ran.
    allow_pickle : bool
        Whether the receiver reads pickles.
    """
    notes = list(getattr(error, "__notes__", ()))
    if with_traceback:
        text = "".join(traceback.format_exception(error)).rstrip()
        notes.append(f"Traceback in the host:\n{text}")
    name = _NAMES.get(type(error))
    args = list(error.args)
    if name is None:
        # A private subclass of NumPy's, such as the one for casting errors, is told as its public parent.
        parent = next((base for base in type(error).__mro__ if base in _NAMES), Exception)
        if type(error).__module__.partition(".")[0] == "numpy":
            name, args = _NAMES[parent], [str(error)]
    if name is not None and all(isinstance(arg, _PLAIN) for arg in args):
        return [name, args, notes, None, ""]
    pickled = _pickle(error) if allow_pickle else None
    return [f"{type(error).__module__}.{type(error).__qualname__}", [str(error)], notes, pickled, str(error)]


def _pickle(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error, protocol=5)
        pickle.loads(data)  # many exceptions can be pickled but not rebuilt
    except Exception:  # a user's class may raise anything here; the error then travels as text
        return None
    return data


def rebuild(description: Any, *, allow_pickle: bool) -> BaseException:
    """Make the exception that `describe` described; a `ProtocolError` of what is no description."""
    try:
        name, args, notes, pickled, text = description
        error = _rebuilt(str(name), args, pickled, str(text), allow_pickle=allow_pickle)
        for note in notes:
            error.add_note(str(note))
    except (TypeError, ValueError):
        return ProtocolError("a malformed description of an error")
    return error


def _rebuilt(name: str, args: Any, pickled: bytes | None, text: str, *, allow_pickle: bool) -> BaseException:
    kind = _SAFE.get(name)
    if pickled is not None and allow_pickle:
        try:
            unpickled = pickle.loads(pickled)
        except Exception:  # the class may not exist here, or fail to rebuild
            return RemoteError(name, text)
        return unpickled if isinstance(unpickled, BaseException) else RemoteError(name, text)
    # What is no Exception ends programs, and not everybody is to do that.
    if kind is None or not (allow_pickle or issubclass(kind, Exception)):
        return RemoteError(name, text)
    error: BaseException = kind(*args)
    return error


def describe_warnings(warned: Iterable[tuple[type[Warning], str]]) -> list[list[str]]:
    """Turn warnings into values that travel; `warn_caller` takes them."""
    return [[category.__name__, text] for category, text in warned]


def warn_caller(warned: Iterable[Iterable[str]]) -> None:
    """Raise the warnings that came from a host, at the line of the caller's code that led here."""
    for category, text in warned:
        _warn(category, text)


def _warn(category: str, text: str) -> None:
    kind = _SAFE.get(f"numpy:{category}") or _SAFE.get(f"builtins:{category}") or _SAFE.get(f"arrayhost:{category}")
    frame = calling_frame()
    warnings.warn_explicit(
        text,
        kind if kind is not None and issubclass(kind, Warning) else UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__", "__main__"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )
