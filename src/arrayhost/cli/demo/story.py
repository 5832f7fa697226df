"""The steps run in order, both sides in one run, and everything shut down however it ends."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from arrayhost.cli.demo.aftermath import aftermath
from arrayhost.cli.demo.measuring import Measured, measure, refusal, same, shown
from arrayhost.cli.demo.ours import Arrays
from arrayhost.cli.demo.processes import interrupts_held
from arrayhost.cli.demo.source import Source
from arrayhost.cli.demo.steps import Stage, Step, Work, story
from arrayhost.cli.demo.twin import Twin
from arrayhost.errors import HostMemoryError

# Copies of the array that are in memory at the fullest moment of the timed steps.
_PEAK_ALONE = 3
_PEAK_WITH_STDLIB = 6


@dataclass(frozen=True)
class Row:
    """What a step came to.

    Attributes
    ----------
    step : str
        Its title.
    result : str
        What it gave; if that is wrong, also what NumPy says.
    right : bool
        Whether it is what NumPy gives.
    seconds : float or None
        What arrayhost took; None if it failed.
    stdlib_seconds : float or None
        What the standard library took; None if it refused.
    stdlib_note : str
        The error it refused with, the help it needed.
    """

    step: str
    result: str
    right: bool
    seconds: float | None
    stdlib_seconds: float | None
    stdlib_note: str

    @property
    def ratio(self) -> float | None:
        """How many times longer the standard library took."""
        return self.stdlib_seconds / self.seconds if self.seconds and self.stdlib_seconds else None


def tell(source: Source, *, stdlib: bool, before: Callable[[int, int, str], None]) -> list[Row]:
    """Run the whole story.

    Parameters
    ----------
    source : Source
        The array it is about.
    stdlib : bool
        Whether the standard library runs beside.
    before : callable
        Told before each step: its number from 0, how many there are, its title.
    """
    steps = [*story(source), *aftermath()]
    rows = []
    _touch(source.nbytes * (_PEAK_WITH_STDLIB if stdlib else _PEAK_ALONE))
    with np.errstate(all="ignore"), _stage(source, stdlib=stdlib) as stage:
        for number, step in enumerate(steps):
            before(number, len(steps), step.title)
            rows.append(_run(step, stage))
        before(len(steps), len(steps), "shutting down")
    return rows


def _touch(n_bytes: int) -> None:
    """Have a virtual machine get its memory now: whoever touches a page first pays for it."""
    np.ones(n_bytes, np.uint8)


@contextlib.contextmanager
def _stage(source: Source, *, stdlib: bool) -> Iterator[Stage]:
    with contextlib.ExitStack() as managers:
        arrays, twin = Arrays(), Twin() if stdlib else None
        try:
            with interrupts_held():
                arrays.start()
                managers.callback(arrays.shutdown)
                if twin:
                    twin.start_quietly()
                    managers.callback(twin.shutdown)
            yield Stage(source, source.load(), arrays, twin)
        finally:
            # One Ctrl-C is enough: a second must not cut the shutting down short.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            managers.close()
            signal.signal(signal.SIGINT, handler)


def _run(step: Step, stage: Stage) -> Row:
    result, right, seconds = _run_ours(step, stage)
    stdlib_seconds, note = _run_twin(step, stage) if stage.twin else (None, "")
    return Row(step.title, result, right, seconds, stdlib_seconds, note)


def _run_ours(step: Step, stage: Stage) -> tuple[str, bool, float | None]:
    try:
        measured = measure(lambda: step.ours(stage), once=step.once)
        expected = step.expected(stage)
        right = same(measured.value, expected)
    except HostMemoryError:
        raise
    except Exception as error:  # a step that fails is a wrong result, and the story goes on
        return refusal(error), False, None
    text = shown(measured.value)
    return text if right else f"{text}, NumPy: {shown(expected)}", right, measured.seconds


def _run_twin(step: Step, stage: Stage) -> tuple[float | None, str]:
    notes = []
    for work, help_ in ((step.plain, ""), (step.helped, f"so: with {step.help_}")):
        if work is None:
            continue
        try:
            measured = _measure_twin(work, stage, once=step.once)
        except Exception as error:  # the error it refuses with is what the row tells
            notes.append(refusal(error))
        else:
            return measured.seconds, "; ".join([*notes, help_] if notes else [])
    return None, "; ".join(notes)


def _measure_twin(work: Work, stage: Stage, *, once: bool) -> Measured:
    return measure(lambda: work(stage), once=once)
