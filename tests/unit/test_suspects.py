"""Looking for the locks of clients that have gone: goes on until they are free, or for a while."""

import time
from typing import Any

import pytest

from arrayhost import DescriptorLimitError
from arrayhost.host import suspects
from arrayhost.host.suspects import Suspects


class Store:
    """Judges as it is told to."""

    def __init__(self, *verdicts: Any) -> None:
        self.verdicts = list(verdicts)

    def written_by(self, holder: Any, pid: int) -> list[int]:
        return [5]

    def judge_writer(self, ident: int, pid: int) -> bool:
        assert (ident, pid) == (5, 77)
        verdict = self.verdicts.pop(0)
        if isinstance(verdict, Exception):
            raise verdict
        return bool(verdict)


def suspects_of(*verdicts: Any) -> Suspects:
    found = Suspects(Store(*verdicts))  # type: ignore[arg-type]  # what it uses of one
    found.add("holder", 77)
    return found


@pytest.mark.parametrize("obstacle", [False, DescriptorLimitError("a lock", 1, 2), OSError("broken")])
def test_looks_until_it_can_judge(obstacle: Any) -> None:
    found = suspects_of(obstacle, obstacle, True)
    for _ in range(2):
        again = found.look()
        assert again is not None
        assert 0 < again - time.monotonic() < 1
    assert found.look() is None
    assert found.look() is None


@pytest.mark.parametrize("obstacle", [False, DescriptorLimitError("a lock", 1, 2)])
def test_does_not_look_for_ever(monkeypatch: pytest.MonkeyPatch, obstacle: Any) -> None:
    monkeypatch.setattr(suspects, "_PATIENCE", 0.0)
    assert suspects_of(obstacle).look() is None
