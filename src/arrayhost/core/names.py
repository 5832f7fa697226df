"""Names of arrays: which text may be one, checked in the client for an early error and in the host for everybody.

A name is for people, shells and, with a directory, for files. So it holds no path, nothing that cannot be seen, and
nothing that looks like something else: what a person reads and types is the name. Composed and decomposed spellings
of a letter are the same name, the composed one.
"""

from __future__ import annotations

import unicodedata

__all__ = ["MAX_NAME_BYTES", "check_name"]

MAX_NAME_BYTES = 255
# What separates the parts of a path, and the signs that look like it.
_SLASHES = frozenset("/\\\u2044\u2215\u2216\u29f5\u29f8\u29f9")
# Beside Latin letters, nobody can tell these from theirs.
_GREEK_LIKE_LATIN = frozenset(
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf"
)
# Printable according to Python, and yet nothing to be seen: fillers, joiners, vowel signs without a shape.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")


def check_name(name: object) -> str:
    """Return an array's name as it is kept.

    Parameters
    ----------
    name : str
        1 to 255 bytes of UTF-8.

    Returns
    -------
    str
        `name` with its accents composed (Unicode's NFC).

    Raises
    ------
    TypeError
        It is no text.
    ValueError
        It is no name; the text says why.
    """
    if not isinstance(name, str):
        raise TypeError(f"arrays are named by text, not by a {type(name).__name__}: manager['prices']")
    # Keyboards have the micro sign where Unicode would have the Greek letter.
    composed = unicodedata.normalize("NFC", name).replace("\u00b5", "\u03bc")
    problem = _problem(composed)
    if problem:
        shown = name if len(name) <= 40 else f"{name[:40]}..."
        raise ValueError(f"array name {shown!r}: {problem}")
    return composed


def _problem(name: str) -> str:
    """Say what is wrong with a name; nothing if it is one."""
    if not name:
        return "a name has at least one character"
    if not name.isprintable() or any(_is_invisible(letter) for letter in name):
        return "control characters and invisible ones cannot stand in a name"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"a name has at most {MAX_NAME_BYTES} bytes of UTF-8, and this {len(name.encode())}"
    if not _SLASHES.isdisjoint(name):
        return "a name is no path: no slash or backslash, nor what looks like one"
    if name[0] in ".-~":
        return f"a name does not begin with {name[0]!r}, which means something else to shells and file systems"
    if name != name.strip() or unicodedata.category(name[0])[0] == "M":
        return "a name neither begins nor ends with a space, nor begins with an accent"
    plain = unicodedata.normalize("NFKC", name)
    if plain != name:
        return f"it holds characters that are another form of ordinary ones; write {plain!r}"
    mixed = _mixed_word(name)
    if mixed:
        return f"the word {mixed!r} mixes Latin, Cyrillic or Greek letters that look alike"
    return ""


def _is_invisible(letter: str) -> bool:
    return letter in _INVISIBLE or "\ufe00" <= letter <= "\ufe0f" or "\U000e0100" <= letter <= "\U000e01ef"


def _mixed_word(name: str) -> str:
    """Return the first run of letters that spells one alphabet's word with another's letters."""
    word, scripts = "", set[str]()
    for letter in f"{name} ":
        if letter.isalpha():
            word += letter
            scripts.add(unicodedata.name(letter, "").partition(" ")[0])
            continue
        # A lone foreign letter beside Latin ones is usual in science (Δt), where it looks like no Latin letter.
        if {"LATIN", "CYRILLIC"} <= scripts or (
            {"LATIN", "GREEK"} <= scripts and not _GREEK_LIKE_LATIN.isdisjoint(word)
        ):
            return word
        word, scripts = "", set[str]()
    return ""
