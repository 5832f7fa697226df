"""What writes to a hosted array: one atomic write each; what nobody classified; outputs that are the caller's."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing.overrides import allows_array_function_override

from arrayhost import ArrayManager, HostedArray
from arrayhost.client.session import round_trips
from tests.conformance.cases import F, G, V, W
from tests.support import assert_same

try:
    from numpy._core.overrides import array_function_dispatch
except ImportError:  # what libraries such as SciPy do is the same, by another name
    array_function_dispatch = None


def iadd(x: Any) -> None:
    x += 1


def iadd_part(x: Any) -> None:
    x[1:] -= 0.5


WRITES: dict[str, Callable[[Any], Any]] = {
    "setitem": lambda x: operator.setitem(x, 0, 1.5),
    "setitem mask": lambda x: operator.setitem(x, F > 0, 9),
    "iadd": iadd,
    "iadd part": iadd_part,
    "imatmul": lambda x: operator.imatmul(x, np.eye(4)),
    "out": lambda x: np.add(x, G, out=x),
    "out where": lambda x: np.sqrt(G, out=x, where=F > 0),
    "out by position": lambda x: np.cumsum(G, 0, None, x),
    "at": lambda x: np.add.at(x, [0, 0, 2], 1),
    "reduce out": lambda x: np.add.reduce(G, axis=0, out=x[0]),
    "several outputs": lambda x: np.divmod(G, 0.75, out=(x, None)),
    "copyto": lambda x: np.copyto(x, G),
    "put": lambda x: np.put(x, W, V),
    "place": lambda x: np.place(x, F > 0, V),
    "putmask": lambda x: np.putmask(x, F > 0, G),
    "fill_diagonal": lambda x: np.fill_diagonal(x, 7),
    "put_along_axis": lambda x: np.put_along_axis(x, np.argsort(G, 1), 0.5, 1),
    "nan_to_num": lambda x: np.nan_to_num(x, copy=False),
    "median": lambda x: np.median(x, overwrite_input=True),
    "method sort": lambda x: x.sort(axis=0),
    "method partition": lambda x: x.partition(1),
    "method fill": lambda x: x.fill(3),
    "method put": lambda x: x.put([1, 2], 8),
    "method byteswap": lambda x: x.byteswap(inplace=True),
    "method itemset": lambda x: operator.setitem(x, (1, 2), 5),
    "method clip": lambda x: x.clip(0, 2, x),
    "real": lambda x: setattr(x, "real", G),
    "flat": lambda x: setattr(x, "flat", V),
}


@pytest.mark.parametrize("name", WRITES)
def test_one_round_trip(manager: ArrayManager, name: str) -> None:
    array = F.copy()
    hosted = manager.array(F)
    version, before = hosted.version, round_trips()
    WRITES[name](hosted)
    assert round_trips() == before + 1
    assert hosted.version == version + 2  # one write
    WRITES[name](array)
    assert_same(hosted.copy(), array)


def test_resize_does_what_it_does_to_an_array_that_does_not_own_its_data(manager: ArrayManager) -> None:
    for shape in [(2, 2), (4, 3), (12,), (-1, 2), (5, 5)]:
        for make in (lambda x: x, lambda x: x.on_host if isinstance(x, HostedArray) else x):
            hosted, array = make(manager.array(F)), F.copy()[...]
            outcomes = []
            for each in (hosted, array):
                try:
                    outcomes.append(each.resize(shape, refcheck=False))
                except ValueError as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]
            assert_same(hosted.copy(), array)


@pytest.mark.skipif(array_function_dispatch is None, reason="this NumPy keeps its dispatcher elsewhere")
@pytest.mark.parametrize("on_host", [False, True])
def test_a_function_nobody_classified_fails_loudly(manager: ArrayManager, on_host: bool) -> None:
    hosted = manager.array(F)
    assert allows_array_function_override(doubles)
    with pytest.raises(ValueError, match="read-only"):
        doubles(hosted.on_host if on_host else hosted)
    assert_same(hosted.copy(), F)
    assert_same(sums(hosted), sums(F))


def test_unknown_views_are_proxies(manager: ArrayManager) -> None:
    hosted = manager.array(F)
    for part in (hosted, hosted[:, ::2], hosted.T, hosted[::-1, 1:]):
        view = corner(part)
        view[...] = 100
        assert (part[:1, :1] == 100).all()
        part[:1, :1] = 3


def _dispatched(function: Callable[..., Any]) -> Callable[..., Any]:
    return function if array_function_dispatch is None else array_function_dispatch(lambda a: (a,))(function)


@_dispatched
def doubles(a: Any) -> None:
    a[...] = a * 2


@_dispatched
def sums(a: Any) -> Any:
    return a.sum(0)


@_dispatched
def corner(a: Any) -> Any:
    return a[:1, :1]


# -- outputs of the caller's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_host", [False, True])
def test_own_outputs_are_written_once(manager: ArrayManager, on_host: bool) -> None:
    hosted = manager.array(np.array([1e308, 1.0, -2.0]))
    other = hosted.on_host if on_host else hosted
    own, plain = np.full(3, 1e308), np.full(3, 1e308)
    with pytest.warns(RuntimeWarning, match="overflow"):
        own += other
    with pytest.warns(RuntimeWarning, match="overflow"):
        plain += hosted.copy()
    assert_same(own, plain)
    counts = np.zeros(3)
    np.add.at(counts, [0, 0, 1], other)
    assert_same(counts, np.array([1e308 + 1, -2.0, 0]))
    result = np.zeros(3)
    assert np.multiply(other, 2.0, out=result, where=np.array([False, True, True])) is result
    assert_same(result, np.array([0.0, 2.0, -4.0]))


@pytest.mark.parametrize("on_host", [False, True])
def test_own_outputs_beside_hosted_ones(manager: ArrayManager, on_host: bool) -> None:
    hosted = manager.zeros(4)
    target = hosted.on_host if on_host else hosted
    own = np.zeros(4)
    quotient, rest = np.divmod(V, 0.75, out=(target, own))
    assert quotient is target
    assert rest is own
    assert_same((hosted.copy(), own), np.divmod(V, 0.75))
    assert_same(np.divmod(V, 2.0, out=(None, target))[0], np.divmod(V, 2.0)[0])


def test_the_callers_print_options_count_everywhere(manager: ArrayManager) -> None:
    hosted = manager.array(F)
    with np.printoptions(precision=1):
        for each in (hosted, hosted.on_host):
            assert np.array_str(each) == np.array_str(F)
            assert str(each) == repr(F)


# -- conditions that are told in the caller's own way --------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)


def told(work: Callable[[], Any], how: str, capfd: pytest.CaptureFixture[str]) -> Any:
    """What the caller is told of: calls, lines of the log, lines on standard error."""
    calls, log = [], Log()
    with np.errstate(all=how, call=log if how == "log" else lambda *condition: calls.append(condition)):
        work()
    return calls, log.lines, capfd.readouterr().err


@pytest.mark.parametrize("how", ["call", "log", "print"])
def test_conditions_in_the_host_are_told_as_the_caller_says(
    manager: ArrayManager, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    array = np.array([1.0, 0.0, -1.0])
    for work in (np.log, lambda x: 1 / x, lambda x: np.divide(1, x, out=x), lambda x: np.log(x, out=x)):
        expected = told(lambda work=work: work(array.copy()), how, capfd)
        assert any(expected)
        for make in (manager.array, lambda x: manager.array(x).on_host):
            hosted = make(array)
            assert told(lambda work=work, hosted=hosted: work(hosted), how, capfd) == expected
