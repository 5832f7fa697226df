"""How a row is measured: interleaved repetitions, medians, ratios and the budget they are held against."""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import time
import timeit
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Samples = dict[str, list[float]]
"""Measured values by who did the work: ``"ours"``, ``"S"``, ``"N"`` and any further reference, paired by position."""

CLEANUP_SECONDS = 15.0
"""How long the cleaning up after an overdue row may take before it is interrupted too."""


@dataclass(frozen=True)
class Scale:
    """How much work a run does."""

    elements: int
    """Length of the large float64 arrays."""
    slow: int
    """Repetitions of work that takes a good part of a second."""
    fast: int
    """Repetitions of work that takes milliseconds."""
    fresh: int
    """Fresh processes per contender, where each serves for one sample only."""
    seconds: float
    """Length of one round of contended increments."""
    row_timeout: float
    """Seconds after which a row is given up."""

    @property
    def nbytes(self) -> int:
        """Bytes of one large array."""
        return 8 * self.elements


FULL = Scale(elements=50_000_000, slow=5, fast=15, fresh=21, seconds=1.0, row_timeout=120.0)
QUICK = Scale(elements=10_000_000, slow=3, fast=7, fresh=7, seconds=0.4, row_timeout=30.0)


@dataclass(frozen=True)
class Budget:
    """A bound on one figure of a row.

    ``ours/N``, ``ours/S``, ``ours/unrelated`` and ``ours/Dask`` are bounded above, ``S/ours`` (how many times faster
    than S) below, and ``ours`` above, in units of `unit_value`.
    """

    figure: Literal["ours/N", "ours/S", "ours/unrelated", "ours/Dask", "S/ours", "ours"]
    limit: float
    unit: str
    unit_value: float = 1.0
    aim: float | None = None

    @property
    def at_least(self) -> bool:
        """Whether larger is better."""
        return self.figure == "S/ours"

    def value(self, samples: Samples) -> float:
        """Return the figure that the budget bounds."""
        if self.figure == "ours":
            return statistics.median(samples["ours"]) / self.unit_value
        numerator, denominator = self.figure.split("/")
        return ratio(samples, numerator, denominator)

    def holds(self, value: float) -> bool:
        """Return whether `value` is within the budget."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        """Format as in the table of DESIGN.md, for instance ``≤ 1.05 N``."""
        aim = "" if self.aim is None else f" (aim {self.aim:g})"
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}{aim}"


@dataclass
class Measurement:
    """What measuring a case gave."""

    samples: Samples
    unit: Literal["s", "B"] = "s"
    notes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """Conditions beside the budget's figure that were not met; any of them makes the row missed."""


@dataclass(frozen=True)
class Case:
    """One row of the table before it is measured."""

    key: str
    title: str
    measure: Callable[[Scale], Measurement]
    budget: Budget | None = None


@dataclass
class Row:
    """One row of the table, measured or failed."""

    key: str
    title: str
    budget: Budget | None
    measurement: Measurement | None = None
    error: str | None = None
    traceback: str | None = None
    seconds: float = 0.0

    @property
    def medians(self) -> dict[str, float]:
        """Median of every contender's samples, in seconds or bytes."""
        if self.measurement is None:
            return {}
        return {who: statistics.median(values) for who, values in self.measurement.samples.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """Median of the pairwise ratios of ours to every other contender, under ``"ours/<who>"``."""
        if self.measurement is None:
            return {}
        samples = self.measurement.samples
        return {f"ours/{who}": ratio(samples, "ours", who) for who in samples if who != "ours"}

    @property
    def value(self) -> float | None:
        """The figure that the budget bounds, or None without a budget or a measurement."""
        if self.measurement is None or self.budget is None:
            return None
        return self.budget.value(self.measurement.samples)

    @property
    def verdict(self) -> Literal["met", "missed", "error", "info"]:
        """How the row stands to its budget."""
        if self.error is not None or self.measurement is None:
            return "error"
        if self.budget is None:
            return "info"
        within = self.budget.holds(self.budget.value(self.measurement.samples))
        return "met" if within and not self.measurement.violations else "missed"


def ratio(samples: Samples, numerator: str, denominator: str) -> float:
    """Return the median of the pairwise ratios of two contenders."""
    pairs = zip(samples[numerator], samples[denominator], strict=True)
    return statistics.median(above / below for above, below in pairs)


def interleave(contenders: Mapping[str, Callable[[], float]], repetitions: int, *, warmup: int = 1) -> Samples:
    """Take one sample of each contender in turn, again and again.

    Parameters
    ----------
    contenders : mapping of name to callable
        Each call returns one sample.
    repetitions : int
        Samples kept of each.
    warmup : int, optional
        Rounds thrown away before.

    Returns
    -------
    dict of name to list of float
        Samples with the same position were taken next to each other.
    """
    samples: Samples = {name: [] for name in contenders}
    for repetition in range(-warmup, repetitions):
        for name, sample in contenders.items():
            value = sample()
            if repetition >= 0:
                samples[name].append(value)
    return samples


def statement(source: str, number: int, **names: Any) -> Callable[[], float]:
    """Return a sampler: seconds per execution of a statement, over `number` executions in a row."""
    timer = timeit.Timer(source, globals=names)
    return lambda: timer.timeit(number) / number


def once(make: Callable[[], object], *, settle: float = 0.0) -> Callable[[], float]:
    """Return a sampler: seconds of one call.

    The result is dropped after the clock has stopped. `settle` seconds of rest follow, for a host that frees memory
    when it hears of that.
    """

    def sample() -> float:
        start = time.perf_counter()
        result = make()
        seconds = time.perf_counter() - start
        del result
        time.sleep(settle)
        return seconds

    return sample


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after `seconds`, and again while the cleaning up hangs."""

    def expire(_signum: int, _frame: object) -> None:
        raise TimeoutError(f"gave up after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, CLEANUP_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reap() -> int:
    """Kill the multiprocessing children that a failed row left behind; return how many there were."""
    children = multiprocessing.active_children()
    for child in children:
        child.kill()
        child.join(5)
    return len(children)


def run(case: Case, scale: Scale) -> Row:
    """Measure one case; an exception becomes the row's error, so that the other rows go on."""
    row = Row(case.key, case.title, case.budget)
    start = time.perf_counter()
    try:
        with deadline(scale.row_timeout):
            row.measurement = case.measure(scale)
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}"
        row.traceback = traceback.format_exc()
    left = reap()
    if left and row.error is None:
        row.error = f"the row left {left} child process(es) running; they were killed"
    row.seconds = time.perf_counter() - start
    return row
