"""Carrying a case out on ndarrays and on hosted arrays, and telling every difference that a user could see."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arrayhost import HostedArray
from arrayhost.client.unmapped import UnmappedArray
from tests.conformance.cases import Case, filled, leaves
from tests.conformance.ways import Way
from tests.support import assert_same

ERRSTATES = ("warn", "ignore", "raise")


@dataclass
class Outcome:
    """What a call did."""

    result: Any
    error: Exception | None
    warned: list[tuple[type, str]]


def outcome(call: Callable[[], Any], errstate: str) -> Outcome:
    """Call, under floating-point settings."""
    result, error = None, None
    with warnings.catch_warnings(record=True) as caught, np.errstate(all=errstate):
        warnings.simplefilter("always")
        try:
            result = call()
        except Exception as raised:
            error = raised
    return Outcome(result, error, [(w.category, str(w.message)) for w in caught])


def public(kind: type) -> type:
    """The nearest class that users can name: NumPy's own for casting errors, and others, are private."""
    return next(base for base in kind.__mro__ if not base.__module__.startswith("numpy._"))


def is_readonly(array: Any) -> bool:
    """Whether NumPy says so; not from an ndarray's flags, which warn of an array from `numpy.broadcast_arrays`."""
    return not array.flags.writeable if isinstance(array, HostedArray) else array.__array_interface__["data"][1]


class Operands:
    """A case's operands, held in one way: hosted ones, their twins, and whether the twins have kept their values.

    Parameters
    ----------
    host : callable
        Hosts an ndarray.
    """

    def __init__(self, case: Case, way: Way, host: Callable[[np.ndarray], Any]) -> None:
        self.case, self.way, self.host = case, way, host
        self.arrays = list(leaves([case.args, case.kwargs]))
        self.renew()

    def renew(self) -> None:
        """Begin with the case's own values."""
        way = self.way
        self.bases = [way.base(array) for array in self.arrays]
        self.twins = [way.take(base) for base in self.bases]
        self.untouched = [base.copy("K") for base in self.bases]
        self.hosted_bases = [base.copy("K") if i % way.every else self.host(base) for i, base in enumerate(self.bases)]
        self.hosted = [
            view if i % way.every else way.turn(view) for i, view in enumerate(map(way.take, self.hosted_bases))
        ]

    def run(self, operands: Iterable[Any], errstate: str) -> Outcome:
        args, kwargs = filled([self.case.args, self.case.kwargs], iter(operands))
        return outcome(lambda: self.case.function(*args, **kwargs), errstate)

    def compare(self, errstate: str) -> bool:
        """Evaluate both and assert that nothing tells them apart; return whether NumPy met a condition to warn of."""
        theirs = self.run(self.twins, errstate)
        ours = self.run(self.hosted, errstate)
        assert ours.warned == theirs.warned, f"warned {ours.warned}, NumPy {theirs.warned}"
        self._compare_errors(ours.error, theirs.error)
        if theirs.error is None:
            self._compare_results(ours.result, theirs.result, "result")
            expected = self.bases
        else:
            # NumPy may have written a part, and so may an ndarray of the caller's have been written in part.
            expected = [
                hosted.copy() if isinstance(hosted, np.ndarray) else before
                for hosted, before in zip(self.hosted_bases, self.untouched, strict=True)
            ]
        for i, (hosted, base) in enumerate(zip(self.hosted_bases, expected, strict=True)):
            values = hosted.copy() if isinstance(hosted, HostedArray) else hosted
            assert_same(values, np.asarray(base, order="C"), f"memory of operand {i} afterwards")
        changed = [base.tobytes() != before.tobytes() for base, before in zip(self.bases, self.untouched, strict=True)]
        if any(changed):
            self.renew()
        return bool(theirs.warned)

    def _compare_errors(self, ours: Exception | None, theirs: Exception | None) -> None:
        if theirs is None:
            if ours is not None:
                raise AssertionError("raised where NumPy does not") from ours
            return
        assert ours is not None, f"NumPy raises {theirs!r}"
        assert isinstance(ours, public(type(theirs))), f"raised {ours!r}, NumPy {theirs!r}"
        assert str(ours) == str(theirs), f"raised {ours!r}, NumPy {theirs!r}"

    def _compare_results(self, ours: Any, theirs: Any, what: str) -> None:
        for hosted, twin in zip(self.hosted, self.twins, strict=True):
            if theirs is twin and isinstance(hosted, HostedArray) and ours is hosted:
                return
        if type(theirs) is np.ndarray:
            self._compare_arrays(ours, theirs, what)
        elif isinstance(theirs, tuple | list) and not isinstance(theirs, np.ndarray):
            assert type(ours) is type(theirs), f"{what}: {type(ours)}, NumPy {type(theirs)}"
            assert len(ours) == len(theirs), f"{what}: {len(ours)} members, NumPy {len(theirs)}"
            for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                self._compare_results(one, other, f"{what}[{i}]")
        else:
            assert_same(ours, theirs, what)

    def _compare_arrays(self, ours: Any, theirs: np.ndarray, what: str) -> None:
        """R1: a view of a hosted array is a proxy, everything else an ndarray."""
        owners = [i for i, twin in enumerate(self.twins) if np.shares_memory(theirs, twin)] if theirs.nbytes else None
        if owners is not None:
            wanted = next((type(self.hosted[i]) for i in owners), np.ndarray)
            assert type(ours) is wanted, f"{what}: a {type(ours).__name__}, wanted a {wanted.__name__}"
        assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, NumPy {theirs.shape}"
        assert ours.dtype == theirs.dtype, f"{what}: dtype {ours.dtype!r}, NumPy {theirs.dtype!r}"
        # What comes from another process is the caller's own, without gaps and writeable.
        sent = any(isinstance(hosted, UnmappedArray) for hosted in self.hosted) and not isinstance(ours, HostedArray)
        for flag in ("c_contiguous", "f_contiguous") if theirs.flags.forc or not sent else ():
            mine, others = getattr(ours.flags, flag), getattr(theirs.flags, flag)
            assert mine == others, f"{what}: {flag} is {mine}, NumPy's {others}"
        mine, others = is_readonly(ours), is_readonly(theirs)
        assert mine == others or (sent and not mine), f"{what}: read-only is {mine}, NumPy's {others}"
        assert _text(str, ours) == _text(repr if isinstance(ours, HostedArray) else str, theirs)
        values = ours.copy("K") if isinstance(ours, HostedArray) else ours
        assert_same(values, theirs, what)


def _text(write: Callable[[Any], str], array: Any) -> str:
    """What is printed; NumPy 2.5 cannot print times whose unit has a factor."""
    try:
        return write(array)
    except OverflowError as error:
        return repr(error)


def check(cases: Sequence[Case], ways: Sequence[Way], host: Callable[[np.ndarray], Any]) -> None:
    """Compare every case, held in every way, under every errstate; tell all differences at once.

    Where NumPy has nothing to warn of, an errstate changes nothing but how the host writes: one way shows that.
    """
    differences = []
    for case, way in itertools.product(cases, ways):
        operands = Operands(case, way, host)
        matters = way is ways[0]
        for errstate in ERRSTATES:
            if errstate != "warn" and not matters:
                continue
            try:
                matters |= operands.compare(errstate)
            except AssertionError as error:
                cause = f" ({error.__cause__!r})" if error.__cause__ is not None else ""
                differences.append(f"{case}, {way.name}, errstate {errstate}: {error}{cause}")
                operands.renew()
    assert not differences, f"{len(differences)} differences\n" + "\n".join(differences)
