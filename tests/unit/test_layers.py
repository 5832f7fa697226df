"""The diagram of layers, kept true: no import points up, and public names are listed in order."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "arrayhost"
ROOT = Path(__file__).parents[2] / "src" / PACKAGE

# From bottom to top; a layer imports itself and what stands below it. Those in one row may not import each other,
# except in the row of the façade, whose modules are one layer in several files ("" is arrayhost/__init__.py).
ROWS = [
    {"errors"},
    {"core"},
    {"memory"},
    {"sync"},
    {"wire"},
    {"evaluation"},
    {"client", "host"},
    {"hosting"},  # host and client in one process
    {"serving", "standing"},  # a host in the foreground; one that others find and start
    {"engines"},  # where arrays live: a host process, a cluster
    {"", "clusters", "creators", "manager", "managers", "named"},
    {"cli", "__main__", "testing"},
]
ONE_LAYER = [{"", "clusters", "creators", "manager", "managers", "named"}, {"cli", "__main__"}]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}

# Calls that import what their first argument names.
LOADERS = ("import_module", "importlib.import_module", "__import__")

# Whoever imports these sees the library's surface; each has to list it.
PUBLIC = [PACKAGE, f"{PACKAGE}.errors", f"{PACKAGE}.managers"]


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    """``arrayhost.core.layout`` -> ``core``; the package itself -> the empty string."""
    return module.partition(".")[2].partition(".")[0]


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, function bodies too, but not the bodies of ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                yield other
                yield from runtime_nodes(other)
        else:
            yield child
            yield from runtime_nodes(child)


def imports(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and full name of each module of this package that `source` imports when it runs."""
    here = module if is_package else module.rpartition(".")[0]
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = here.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from arrayhost import errors` is an import of the module if there is one, else of a name in the package.
            found = [f"{origin}.{a.name}" if f"{origin}.{a.name}" in known else origin for a in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in LOADERS:
            first = node.args[0] if node.args else None
            found = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        else:
            continue
        for name in found:
            if name == PACKAGE or name.startswith(PACKAGE + "."):
                yield node.lineno, name


def is_allowed(importer: str, imported: str) -> bool:
    if importer == imported or any(importer in group and imported in group for group in ONE_LAYER):
        return True
    return RANK[imported] < RANK[importer]


PATHS = sorted(ROOT.rglob("*.py"))
MODULES = {module_name(path): path for path in PATHS}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    path = MODULES[module]
    assert layer(module) in RANK, f"{path}: a new part of the package needs its row in this file's table"
    wrong = [
        f"{path}:{line}: {layer(module) or 'the package'} must not import {name}"
        for line, name in imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py", set(MODULES))
        if not is_allowed(layer(module), layer(name))
    ]
    assert not wrong, "\n".join(wrong)


def listed_names(path: Path) -> list[str] | None:
    """The `__all__` of a module, read without importing it; None if it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = [*getattr(node, "targets", ()), getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return ast.literal_eval(node.value)
    return None


def sort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order to which ``ruff check --fix`` brings an `__all__`."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("module", PUBLIC)
def test_public_modules_list_their_names(module):
    assert listed_names(MODULES[module]), f"{module} needs an __all__"


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if listed_names(path) is not None])
def test_listed_names_are_sorted_and_exist(module):
    names = importlib.import_module(module).__all__
    assert list(names) == sorted(set(names), key=sort_key)
    missing = [name for name in names if not hasattr(importlib.import_module(module), name)]
    assert not missing, f"{module} lists what it lacks: {missing}"


def test_every_error_is_at_the_top():
    package = importlib.import_module(PACKAGE)
    errors = importlib.import_module(f"{PACKAGE}.errors")
    classes = [name for name in errors.__all__ if isinstance(getattr(errors, name), type)]
    assert classes
    assert [name for name in classes if getattr(package, name, None) is not getattr(errors, name)] == []


class TestTheReaderItself:
    """A check that finds nothing must be known to look."""

    KNOWN = frozenset({"arrayhost", "arrayhost.errors", "arrayhost.core", "arrayhost.core.layout", "arrayhost.host"})

    def find(self, source: str, module: str = "arrayhost.core.layout", is_package: bool = False) -> list[str]:
        return [name for _, name in imports(source, module, is_package, set(self.KNOWN))]

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("import numpy, arrayhost.host", ["arrayhost.host"]),
            ("from arrayhost import errors", ["arrayhost.errors"]),
            ("from arrayhost import ArrayManager", ["arrayhost"]),
            ("from arrayhost.core.layout import Layout", ["arrayhost.core.layout"]),
            ("from . import layout", ["arrayhost.core.layout"]),
            ("from .. import host", ["arrayhost.host"]),
            ("from ..host import service", ["arrayhost.host"]),
            ("def f():\n    from arrayhost import host", ["arrayhost.host"]),
            ("import importlib\nimportlib.import_module('arrayhost.host')", ["arrayhost.host"]),
            ("if TYPE_CHECKING:\n    import arrayhost.host\nelse:\n    import arrayhost.errors", ["arrayhost.errors"]),
            ("import arrayhostess", []),
        ],
    )
    def test_finds(self, source, expected):
        assert self.find(source) == expected

    def test_relative_in_a_package(self):
        assert self.find("from . import layout", "arrayhost.core", is_package=True) == ["arrayhost.core.layout"]

    def test_arrows(self):
        assert is_allowed("client", "wire")
        assert is_allowed("manager", "")
        assert is_allowed("cli", "")
        assert not is_allowed("client", "host")
        assert not is_allowed("host", "client")
        assert not is_allowed("core", "memory")
        assert not is_allowed("wire", "")
