"""Exceptions on the wire."""

import fractions
import warnings
from typing import Any

import numpy as np
import pytest

from arrayhost import errors
from arrayhost.wire.codec import Codec, Encoder
from arrayhost.wire.failures import describe, rebuild, warn_caller


class Importable(Exception):
    """Travels only as a pickle."""


class Stubborn(Exception):
    """Can be pickled and not rebuilt."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def travel(error: BaseException, *, with_traceback: bool = False, allow_pickle: bool = True) -> BaseException:
    data = Encoder(lambda value: None, allow_pickle=False).encode(
        describe(error, with_traceback=with_traceback, allow_pickle=allow_pickle)
    )
    description = Codec(lambda handle: handle, allow_pickle=False).decode(data)
    return rebuild(description, allow_pickle=allow_pickle)


@pytest.mark.parametrize("allow_pickle", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), KeyError("missing"), IndexError(), ZeroDivisionError("division"), OSError(2, "no file"),
        StopIteration(5), KeyboardInterrupt(), np.exceptions.AxisError("axis 5"), np.linalg.LinAlgError("singular"),
        errors.TornArrayError(12),
        errors.HostMemoryError(10**12, 5, "this machine"), errors.StaleProxyError("gone"), errors.WouldDeadlock("you"),
        errors.DescriptorLimitError("a memory file", 7, 1024, "process 7"),
        errors.GatherLimitError("sort", 10**10, 10**8), errors.ClusterTimeoutError("a cluster", 5.0, 0),
    ],
    ids=lambda error: type(error).__name__ if isinstance(error, BaseException) else str(error),
)  # fmt: skip
def test_safe_types_arrive_as_themselves(error: BaseException, allow_pickle: bool) -> None:
    again = travel(error, allow_pickle=allow_pickle)
    if not isinstance(error, Exception) and not allow_pickle:
        # It would end the program of whoever asked.
        assert type(again) is errors.RemoteError
        return
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)


def test_every_error_of_the_package_is_safe() -> None:
    with_facts = (errors.LockTimeoutError, errors.TornArrayError, errors.HostMemoryError, errors.DescriptorLimitError,
                  errors.RemoteError, errors.GatherLimitError, errors.ClusterTimeoutError)  # fmt: skip
    for name, kind in errors.errors_by_name().items():
        if kind not in with_facts:
            assert type(travel(kind("text"), allow_pickle=False)) is kind, name


def test_numpys_private_errors_arrive_as_their_public_parent() -> None:
    with pytest.raises(TypeError) as caught:
        np.add(np.ones(2, "i8"), 1.5, out=np.ones(2, "i8"), casting="safe")
    assert type(caught.value) is not TypeError
    again = travel(caught.value, allow_pickle=False)
    assert type(again) is TypeError
    assert str(again) == str(caught.value)


def test_a_users_class_needs_trust() -> None:
    assert type(travel(Importable("a", 1))) is Importable
    assert travel(Importable("a", 1)).args == ("a", 1)
    remote = travel(Importable("a"), allow_pickle=False)
    assert isinstance(remote, errors.RemoteError)
    assert "Importable in the host: a" in str(remote)


def test_a_pickle_is_not_read_from_an_untrusted_peer() -> None:
    description = describe(Importable("a"), with_traceback=False, allow_pickle=True)
    assert isinstance(rebuild(description, allow_pickle=False), errors.RemoteError)


def test_what_cannot_be_rebuilt_travels_as_text() -> None:
    remote = travel(Stubborn(1, 2))
    assert isinstance(remote, errors.RemoteError)
    assert remote.type_name.endswith(".Stubborn")
    assert remote.text == "1 and 2"


def test_arguments_that_do_not_travel_plainly() -> None:
    assert travel(ValueError(fractions.Fraction(1, 2))).args == (fractions.Fraction(1, 2),)
    assert type(travel(ValueError(object()), allow_pickle=False)) in (ValueError, errors.RemoteError)


def test_notes_and_the_hosts_traceback_travel() -> None:
    def broken() -> None:
        raise ValueError("inside")

    try:
        broken()
    except ValueError as error:
        error.add_note("a note")
        caught = error
    notes: list[Any] = travel(caught, with_traceback=True).__notes__
    assert notes[0] == "a note"
    assert notes[1].startswith("Traceback in the host:")
    assert "in broken" in notes[1]
    assert travel(caught).__notes__ == ["a note"]


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("RuntimeWarning", RuntimeWarning), ("DeprecationWarning", DeprecationWarning),
        ("ComplexWarning", np.exceptions.ComplexWarning), ("TornArrayWarning", errors.TornArrayWarning),
        ("SomebodysWarning", UserWarning), ("ValueError", UserWarning),
    ],
)  # fmt: skip
def test_warnings_come_at_the_callers_line(category: str, kind: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_caller([(category, "careful")])
    assert [(w.category, str(w.message), w.filename) for w in caught] == [(kind, "careful", __file__)]
