"""An array's attributes: a small mapping of text to plain JSON values that travels and is kept with the array."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_ATTRIBUTE_BYTES", "check_attributes", "check_size"]

# Attributes are looked at whole, by `ls` and in every record of the array: they describe it, they are no data.
MAX_ATTRIBUTE_BYTES = 64 * 1024
_MAX_KEY_BYTES = 255


def check_attributes(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a plain copy of attributes.

    Returns
    -------
    dict
        Of text, numbers, booleans, None, lists and dicts of these. NumPy's scalars and arrays and tuples have become
        Python's numbers and lists.

    Raises
    ------
    TypeError
        A key is no text, or a value is no JSON.
    ValueError
        A number is not finite; a key is empty or has more than 255 bytes; all together is more than 64 KiB of JSON.
    """
    plain = {_key(key): _value(value, str(key), 0) for key, value in dict(values).items()}
    check_size(plain)
    return plain


def check_size(values: Mapping[str, Any]) -> None:
    """Raise ValueError if attributes are too large to keep."""
    size = len(json.dumps(values, allow_nan=False).encode())
    if size > MAX_ATTRIBUTE_BYTES:
        raise ValueError(
            f"the attributes would take {size} bytes of JSON and may take {MAX_ATTRIBUTE_BYTES}; "
            "put what is larger into an array of its own"
        )


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"attributes are named by text, not by a {type(key).__name__}")
    if not key or len(key.encode("utf-8", "surrogatepass")) > _MAX_KEY_BYTES or not key.isprintable():
        raise ValueError(f"attribute name {key[:40]!r}: 1 to {_MAX_KEY_BYTES} bytes, printable")
    return key


def _value(value: Any, key: str, depth: int) -> Any:
    if depth > 16:
        raise ValueError(f"attribute {key!r} is nested more than 16 deep")
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, str)):
        if isinstance(value, str):
            value.encode()  # half of a surrogate pair is no text: UnicodeEncodeError, a ValueError
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            raise ValueError(f"attribute {key!r} is {value}, which JSON does not have; use None, or text")
        return value
    if isinstance(value, (list, tuple)):
        return [_value(part, key, depth + 1) for part in value]
    if isinstance(value, dict):
        return {_key(name): _value(part, key, depth + 1) for name, part in value.items()}
    raise TypeError(
        f"attribute {key!r} is a {type(value).__name__}; attributes are text, numbers, booleans, None, "
        "and lists and dicts of these"
    )
