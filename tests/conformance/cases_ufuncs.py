"""Cases of ufuncs, made from what each says of itself: its types, its numbers of operands, its signature."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.conformance.cases import BYTES, TEXT, Case, zeros

# One-dimensional samples for the letters of NumPy's type signatures, with zeros, infinities and extremes where those
# exist: that is where warnings come from.
SAMPLES: dict[str, np.ndarray] = {
    "?": np.array([True, False, True]),
    "b": np.array([1, -128, 3], "i1"),
    "i": np.array([1, -7, 0], "i4"),
    "l": np.array([5, -1, 2]),
    "q": np.array([5, -1, 2], "q"),
    "Q": np.array([5, 1, 0], "Q"),
    "e": np.array([0.5, -1.0, 60000], "e"),
    "f": np.array([0.5, -2.0, np.inf], "f"),
    "d": np.array([0.0, -1.5, 700]),
    "g": np.array([0.25, -3.0, np.nan], "g"),
    "D": np.array([1 + 2j, 0j, -1.5 + 0j]),
    "M": np.array(["2024-02-28", "2024-03-01", "NaT"], "M8[D]"),
    "m": np.array([1, -2, 30], "m8[h]"),
}
_LETTERS = "d?lqDgefbQiMm"
_MOST_SIGNATURES = 5

# Ufuncs of text have no type signatures; the ones with an underscore are behind functions of numpy.strings.
_N = np.array([1, 0, 2, 3])
_ONE = np.array(["b", "z", "1", " "])
TEXT_OPERANDS: dict[str, list[tuple[Any, ...]]] = {
    **{name: [(TEXT,), (BYTES,)] for name in ("isalnum", "isalpha", "isdigit", "islower", "isspace", "istitle",
                                              "isupper", "str_len", "_lstrip_whitespace", "_rstrip_whitespace",
                                              "_strip_whitespace")},
    **{name: [(TEXT,)] for name in ("isdecimal", "isnumeric")},
    **{name: [(TEXT, _ONE)] for name in ("_lstrip_chars", "_rstrip_chars", "_strip_chars")},
    **{name: [(TEXT, _ONE, 0, 9), (TEXT, "b", _N, 9)] for name in ("count", "find", "rfind", "index", "rindex",
                                                                   "startswith", "endswith")},
    "_expandtabs_length": [(TEXT, _N)],
}  # fmt: skip

# No cases of their own: only functions of numpy.strings call them, which have cases. These check the operands and
# make outputs that are wide enough, without which NumPy itself writes beyond an output's end.
BEHIND_FUNCTIONS = frozenset(["_center", "_expandtabs", "_ljust", "_partition", "_partition_index", "_replace",
                              "_rjust", "_rpartition", "_rpartition_index", "_slice", "_zfill"])  # fmt: skip
# Since NumPy 2.5, for dtypes that others define: they have no loop for any of NumPy's own.
WITHOUT_LOOPS = frozenset(["real", "imag"])

# Core dimensions of the generalised ufuncs: operands, and an output of the right shape.
_M = np.arange(6.0).reshape(2, 3)
_A = np.array([1.0, -2.0, np.inf])
CORE_OPERANDS: dict[str, tuple[tuple[np.ndarray, ...], np.ndarray]] = {
    "matmul": ((_M, _M.T.copy()), zeros(2, 2)),
    "matvec": ((_M, _A), zeros(2)),
    "vecmat": ((_A[:2], _M), zeros(3)),
    "vecdot": ((_M, _A), zeros(2)),
}


def operands_of(ufunc: np.ufunc) -> list[tuple[Any, ...]]:
    """Inputs for a ufunc, one tuple for each of some of its type signatures."""
    if ufunc.__name__ in TEXT_OPERANDS:
        return TEXT_OPERANDS[ufunc.__name__]
    if ufunc.signature is not None:
        return [CORE_OPERANDS[ufunc.__name__][0]]
    signatures = [types.partition("->")[0] for types in ufunc.types]
    known = [inputs for inputs in signatures if set(inputs) <= set(SAMPLES)]
    known.sort(key=lambda inputs: [_LETTERS.index(letter) for letter in inputs])
    found = []
    for inputs in known[:_MOST_SIGNATURES]:
        arrays = [SAMPLES[letter] for letter in inputs]
        # Rolled, so that two operands of one type differ.
        found.append(tuple(np.roll(array, i) for i, array in enumerate(arrays)))
    return found


def cases_of(ufunc: np.ufunc) -> Iterator[Case]:
    """Every method of a ufunc, with every parameter that it has."""
    every = operands_of(ufunc)
    assert every, f"no operands for {ufunc}"
    for inputs in every:
        yield Case(ufunc, inputs)
    inputs = every[0]
    yield from _call_cases(ufunc, inputs)
    for method in ("reduce", "accumulate", "reduceat", "outer", "at"):
        for case in _METHOD_CASES[method](inputs, ufunc):
            yield Case(_named(ufunc, method), case.args, case.kwargs)


def _named(ufunc: np.ufunc, method: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*args, **kwargs)

    call.__name__ = f"{ufunc.__name__}.{method}"
    return call


def _outputs(ufunc: np.ufunc, inputs: tuple[Any, ...]) -> list[np.ndarray]:
    """Arrays to write to, of the types and shapes that the ufunc's results have."""
    with np.errstate(all="ignore"):
        results = ufunc(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    return [np.zeros_like(result) for result in results]


def _call_cases(ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Iterator[Case]:
    try:
        outputs = _outputs(ufunc, inputs)
    except (TypeError, ValueError):
        outputs = [zeros(3)] * ufunc.nout
    one = outputs[0] if ufunc.nout == 1 else tuple(outputs)
    yield Case(ufunc, (*inputs, *outputs))
    yield Case(ufunc, inputs, {"out": tuple(outputs)})
    yield Case(ufunc, inputs, {"out": (None,) * (ufunc.nout - 1) + (outputs[-1],)})
    yield Case(ufunc, inputs, {"out": one, "dtype": "f4", "casting": "unsafe"})
    yield Case(ufunc, inputs, {"out": np.zeros((2, 2), "i1") if ufunc.nout == 1 else (np.zeros(9), None)})
    yield Case(ufunc, inputs, {"order": "F", "subok": False})
    yield Case(ufunc, inputs[:-1] or ("text",))
    if ufunc.signature is None:
        where = np.resize([True, False], np.shape(inputs[0]))
        yield Case(ufunc, inputs, {"where": where, "out": one})
        yield Case(ufunc, inputs, {"where": where[:2], "out": one})
        if all(isinstance(value, np.ndarray) for value in inputs):
            squares = [np.resize(value, (2, len(value))) for value in inputs]
            yield Case(ufunc, (squares[0], *inputs[1:]))
            yield Case(ufunc, ([inputs[0], inputs[0]], *inputs[1:]))  # nested in a list: NumPy converts that itself
            if ufunc.nout == 1 and np.can_cast(outputs[0].dtype, inputs[0].dtype, "same_kind"):
                yield Case(_in_place(ufunc), inputs)
    else:
        swapped = CORE_OPERANDS[ufunc.__name__]
        yield Case(ufunc, swapped[0], {"out": swapped[1]})
        yield Case(ufunc, swapped[0], {"axis": -1})
        yield Case(ufunc, swapped[0], {"keepdims": True})
        yield Case(ufunc, swapped[0], {"axes": [(0, 1)]})
        yield Case(ufunc, (np.stack([swapped[0][0]] * 2), swapped[0][1]))


def _in_place(ufunc: np.ufunc) -> Callable[..., Any]:
    """The first operand is the output, too."""

    def call(*inputs: Any) -> Any:
        return ufunc(*inputs, out=inputs[0])

    call.__name__ = f"{ufunc.__name__} in place"
    return call


def _reduce_cases(inputs: tuple[Any, ...], ufunc: np.ufunc) -> Iterator[Case]:
    table = np.resize(np.asarray(inputs[0]), (2, 3))
    yield Case(ufunc, (table,))
    yield Case(ufunc, (table,), {"axis": 1, "keepdims": True})
    yield Case(ufunc, (table, None))
    yield Case(ufunc, (table,), {"axis": (0, 1), "dtype": "f4"})
    yield Case(ufunc, (table,), {"axis": 0, "out": np.zeros(3, table.dtype)})
    yield Case(ufunc, (table, 0, None, np.zeros(3, table.dtype)))
    yield Case(ufunc, (table,), {"where": np.array([True, False, True]), "initial": 1})
    yield Case(ufunc, (table,), {"axis": 5})
    yield Case(ufunc, ([inputs[0], inputs[0]],))


def _accumulate_cases(inputs: tuple[Any, ...], ufunc: np.ufunc) -> Iterator[Case]:
    table = np.resize(np.asarray(inputs[0]), (2, 3))
    yield Case(ufunc, (table,))
    yield Case(ufunc, (table, 1, "f4"))
    yield Case(ufunc, (table,), {"axis": 1, "out": np.zeros((2, 3), table.dtype)})


def _reduceat_cases(inputs: tuple[Any, ...], ufunc: np.ufunc) -> Iterator[Case]:
    table = np.resize(np.asarray(inputs[0]), (2, 3))
    yield Case(ufunc, (inputs[0], [0, 2, 1]))
    yield Case(ufunc, (table, np.array([0, 2])), {"axis": 1})
    yield Case(ufunc, (table, [0, 1]), {"out": np.zeros((2, 3), table.dtype)})
    yield Case(ufunc, (inputs[0], [99]))


def _outer_cases(inputs: tuple[Any, ...], ufunc: np.ufunc) -> Iterator[Case]:
    yield Case(ufunc, inputs)
    if len(inputs) == 2 and ufunc.signature is None and ufunc.nout == 1:
        try:
            out = np.zeros_like(ufunc.outer(*inputs))
        except (TypeError, ValueError):
            return
        yield Case(ufunc, inputs, {"out": out})
        yield Case(ufunc, (inputs[0], 1))


def _at_cases(inputs: tuple[Any, ...], ufunc: np.ufunc) -> Iterator[Case]:
    rest = tuple(value[:2] if isinstance(value, np.ndarray) else value for value in inputs[1:])
    yield Case(ufunc, (inputs[0], [0, 0], *rest))
    yield Case(ufunc, (inputs[0], np.array([2, 1]), *rest))
    yield Case(ufunc, (inputs[0], (slice(0, 2),), *rest))
    yield Case(ufunc, (inputs[0], [0, 99], *rest))


_METHOD_CASES: dict[str, Callable[[tuple[Any, ...], np.ufunc], Iterator[Case]]] = {
    "reduce": _reduce_cases,
    "accumulate": _accumulate_cases,
    "reduceat": _reduceat_cases,
    "outer": _outer_cases,
    "at": _at_cases,
}
