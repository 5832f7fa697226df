"""The story, a row each: what arrayhost does, what NumPy says of it, what the standard library does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from arrayhost.cli.demo import adding
from arrayhost.cli.demo.measuring import Measured
from arrayhost.cli.demo.processes import Answers, ask, ask_together
from arrayhost.cli.demo.source import Array, Source

START_METHODS = ("fork", "spawn", "forkserver")
_ATTRIBUTES = ("dtype", "ndim", "size", "nbytes", "itemsize")
_EXPOSED = "exposed="
_OWN_PROXY = "a proxy class of one's own"


@dataclass
class Stage:
    """What the steps find and leave to the next: the managers, the array, and what was made of it.

    Attributes
    ----------
    reference
        NumPy's array, private to this process.
    hosted
        The proxy of arrayhost.
    proxy, own_proxy
        Proxies of the standard library, to one array: with the methods it exposes by itself, and with `ArrayProxy`.
    box, twin_box
        Proxies of the custom class.
    """

    source: Source
    reference: Array
    arrays: Any  # an Arrays: what is registered at run time has no static type
    twin: Any  # a Twin or None
    hosted: Any = None
    proxy: Any = None
    own_proxy: Any = None
    box: Any = None
    twin_box: Any = None
    box_args: tuple[int, str | None] = field(init=False)

    def __post_init__(self) -> None:
        """Say how the custom classes are called."""
        self.box_args = (0 if self.source.path else self.source.shape[0], self.source.path)


Work = Callable[[Stage], Any]


@dataclass(frozen=True)
class Step:
    """A row of the story.

    Attributes
    ----------
    title
        As the reader sees it.
    ours, expected
        What arrayhost gives and what it must give.
    plain, helped, help_
        The standard library as it comes; if that refuses, with the help that `help_` names.
    once
        A single go: it starts processes, or makes something that stays.
    """

    title: str
    ours: Work
    expected: Work
    plain: Work | None = None
    helped: Work | None = None
    help_: str = ""
    once: bool = False


def story(source: Source) -> list[Step]:
    """List the steps for `source`, in order."""
    return [*_creating(source), *_whole(), *_elsewhere(), *_looking(source), *_class(source), *_adding()]


def _creating(source: Source) -> list[Step]:
    title = f"create np.ones({source.shape})" if source.path is None else "host the file's array"
    create = Step(title, _host, _kind_expected, _twin_plain, _twin_exposed, _EXPOSED, once=True)
    return [create, _asked("print(a)", str, lambda s: repr(s.reference))]


def _kind_expected(stage: Stage) -> Any:
    return stage.reference.shape, str(stage.reference.dtype)


def _host(stage: Stage) -> Any:
    if stage.source.path is None:
        stage.hosted = stage.arrays.shared_array(stage.source.shape)
    else:
        stage.hosted = stage.arrays.asarray(stage.source.load())
    return stage.hosted.shape, str(stage.hosted.dtype)


def _twin_plain(stage: Stage) -> Any:
    _twin_host(stage, "plain_ones", "plain_asarray")


def _twin_exposed(stage: Stage) -> Any:
    _twin_host(stage, "ones", "asarray")


def _twin_host(stage: Stage, ones: str, asarray: str) -> None:
    if stage.source.path is None:
        stage.proxy = getattr(stage.twin, ones)(stage.source.shape)
    else:
        stage.proxy = getattr(stage.twin, asarray)(stage.source.load())
    stage.own_proxy = stage.twin.same()


def _whole() -> list[Step]:
    return [
        _asked("a.sum()", lambda a: a.sum()),
        _asked("a._getvalue().sum()", lambda a: a._getvalue().sum(), _sum),
    ]


def _sum(stage: Stage) -> Any:
    return stage.reference.sum()


def sum_of(proxy: Any) -> Any:
    """Sum through a proxy; runs in a child."""
    return proxy.sum()


def sum_of_mapped(proxy: Any) -> Any:
    """Sum the elements themselves, in the child's hands; runs in a child."""
    return np.asarray(proxy).sum()


def sum_of_copied(proxy: Any) -> Any:
    """Sum the elements that the standard library copies into the child."""
    return proxy._getvalue().sum()


def _elsewhere() -> list[Step]:
    by_method = [_in_child(method) for method in START_METHODS]
    elements = Step(
        "the elements in a child: np.asarray(a).sum()",
        lambda s: _only(ask_together(1, sum_of_mapped, s.hosted)),
        _sum,
        lambda s: _only(ask_together(1, sum_of_copied, s.proxy)),
        once=True,
    )
    return [*by_method, elements]


def _in_child(method: str) -> Step:
    return Step(
        f"Process(args=(a,)) sums it, {method}, start included",
        lambda s: ask(method, sum_of, s.hosted),
        _sum,
        lambda s: ask(method, sum_of, s.proxy),
        once=True,
    )


def _only(answers: Answers) -> Measured:
    return Measured(answers.values[0], answers.seconds)


def _looking(source: Source) -> list[Step]:
    head = source.head
    shown = "[:10]" if source.shape else "[()]"
    return [
        _asked("a.shape", lambda a: a.shape, helped=True),
        _asked(", ".join(f".{name}" for name in _ATTRIBUTES), _attributes, helped=True),
        _asked("a._callmethod('__getattr__', args=('shape',))", _getattr, _shape),
        _asked(f"a{shown}", lambda a: a[head], helped=True),
        _asked(
            f"a._callmethod('__getitem__', args=({_index(source)},))",
            lambda a: a._callmethod("__getitem__", args=(head,)),
            lambda s: s.reference[head],
            helped=True,
        ),
    ]


def _asked(title: str, question: Callable[[Any], Any], expected: Work | None = None, *, helped: bool = False) -> Step:
    """Put one question to every array: arrayhost's, the standard library's and, unless told what to expect, NumPy's."""
    return Step(
        title,
        lambda s: question(s.hosted),
        expected or (lambda s: question(s.reference)),
        lambda s: question(s.proxy),
        (lambda s: question(s.own_proxy)) if helped else None,
        _OWN_PROXY,
    )


def _index(source: Source) -> str:
    return "slice(0, 10)" if source.shape else "()"


def _shape(stage: Stage) -> Any:
    return stage.reference.shape


def _attributes(array: Any) -> tuple[Any, ...]:
    return tuple(getattr(array, name) for name in _ATTRIBUTES)


def _getattr(proxy: Any) -> Any:
    return proxy._callmethod("__getattr__", args=("shape",))


def _class(source: Source) -> list[Step]:
    head = source.head
    return [
        Step("a class of one's own: Box()", _make_box, lambda s: "Box", _make_twin_box, once=True),
        _asked_box("Box.attribute('shape')", lambda box: box.attribute("shape"), _shape),
        _asked_box("Box.sum()", lambda box: box.sum(), _sum),
        _asked_box(f"Box.getdata({_index(source)})", lambda box: box.getdata(head), lambda s: s.reference[head]),
    ]


def _asked_box(title: str, question: Callable[[Any], Any], expected: Work) -> Step:
    return Step(title, lambda s: question(s.box), expected, lambda s: question(s.twin_box))


def _make_box(stage: Stage) -> Any:
    stage.box = stage.arrays.Box(*stage.box_args)
    return "Box"


def _make_twin_box(stage: Stage) -> Any:
    stage.twin_box = stage.twin.Box(*stage.box_args)
    return "Box"


def _adding() -> list[Step]:
    return [
        Step(
            f"Box with a lock inside: {adding.BOX_PROCESSES} processes add, each addition",
            lambda s: adding.through_box(s.arrays.LockedBox(*_instead_of_box(s))),
            lambda s: adding.BOX_TOTAL,
            lambda s: adding.through_box(s.twin.LockedBox(*_instead_of_box(s))),
            once=True,
        ),
        Step(
            f"with a.write() as x: x[0] += 1, {adding.PROCESSES} processes, each addition",
            lambda s: adding.in_sections(s.arrays.zeros(1, np.int64)),
            lambda s: adding.SECTIONS_TOTAL,
            lambda s: adding.under_lock(s.twin.zeros(1), s.twin.Lock()),
            once=True,
        ),
    ]


def _instead_of_box(stage: Stage) -> tuple[int, str | None]:
    stage.box = stage.twin_box = None  # their memory first: what comes is as large
    return stage.box_args
