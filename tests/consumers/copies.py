"""Which calls copy the array: the memory that each takes at its peak, given an ndarray and given a hosted array.

``docs/consumers.md`` shows these calls with what was measured, and ``test_documented.py`` compares the two.
"""

import gc
import importlib
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROWS, COLUMNS = 5_000_000, 10  # of float64: 400 MB
ZERO_COPY, COPIES = "yes", "no"
KINDS = ("ndarray", "hosted", "section")


class Case(NamedTuple):
    """One call.

    Attributes
    ----------
    library : str
        The package that is called.
    call : str
        The expression. `a` is the whole array of two dimensions, `v` the same in one, `part` the first tenth of `a`.
    given : str
        Which of the three it is about.
    """

    library: str
    call: str
    given: str


CASES = [
    Case("numpy", "np.asarray(a)", "a"),
    Case("numpy", "np.array(a)", "a"),
    Case("numpy", "np.from_dlpack(a)", "a"),
    Case("pandas", "pd.DataFrame(a)", "a"),
    Case("pandas", "pd.DataFrame(a, copy=False)", "a"),
    Case("pandas", "pd.Series(v)", "v"),
    Case("pandas", "pd.Series(v, copy=False)", "v"),
    Case("xarray", "xr.DataArray(a, dims=('x', 'y'))", "a"),
    Case("xarray", "xr.Variable('x', v).values", "v"),
    Case("dask", "da.from_array(a, chunks=(100_000, 10))", "a"),
    Case("pyarrow", "pa.array(v)", "v"),
    Case("pyarrow", "pa.table({'v': v})", "v"),
    Case("numba", "total(np.asarray(v))", "v"),
    Case("sklearn", "check_array(a)", "a"),
    Case("scipy", "scipy.ndimage.sum(a)", "a"),
    Case("scipy", "scipy.stats.rankdata(part)", "part"),
    Case("h5py", "file.create_dataset('part', data=part)", "part"),
    Case("torch", "torch.from_numpy(np.asarray(a))", "a"),
    Case("torch", "torch.as_tensor(np.asarray(a))", "a"),
    Case("torch", "torch.from_dlpack(np.asarray(a))", "a"),
    Case("torch", "torch.as_tensor(a)", "a"),
    Case("torch", "torch.from_dlpack(a)", "a"),
]


def _imports(**names: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {alias: importlib.import_module(name) for alias, name in names.items()}


def _numba(folder: Path) -> dict[str, Any]:
    import numba

    @numba.njit
    def total(x: Any) -> float:
        result = 0.0
        for value in x:
            result += value
        return result

    return {"total": total}


def _sklearn(folder: Path) -> dict[str, Any]:
    from sklearn.utils import check_array

    return {"check_array": check_array}


def _h5py(folder: Path) -> dict[str, Any]:
    import h5py

    class Replacing(h5py.File):
        def create_dataset(self, name: str, **options: Any) -> Any:
            if name in self:
                del self[name]
            return super().create_dataset(name, **options)

    return {"file": Replacing(folder / "file.h5", "w")}


NAMESPACES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "numpy": _imports(),
    "pandas": _imports(pd="pandas"),
    "xarray": _imports(xr="xarray"),
    "dask": _imports(da="dask.array"),
    "pyarrow": _imports(pa="pyarrow"),
    "numba": _numba,
    "sklearn": _sklearn,
    "scipy": lambda folder: {
        **_imports(s="scipy.special", n="scipy.ndimage")(folder),
        **_imports(scipy="scipy")(folder),
    },
    "h5py": _h5py,
    "torch": _imports(torch="torch"),
}


def measure(hosted: Any, small: Any, with_torch: bool) -> dict[tuple[Case, str], str]:
    """Measure every case, with an ndarray, with `hosted`, and inside ``hosted.write()``.

    Parameters
    ----------
    hosted, small : HostedArray
        (ROWS, COLUMNS) of float64; and one of a few rows, with which every call is tried first.
    with_torch : bool
        Whether torch is installed.

    Returns
    -------
    dict
        `ZERO_COPY` or `COPIES`, for each case and each of `KINDS`.
    """
    warnings.simplefilter("ignore")  # torch tells of each tensor that it is of read-only memory
    outcomes = {}
    plain = np.ones((ROWS, COLUMNS))
    with tempfile.TemporaryDirectory() as name:
        for library in dict.fromkeys(case.library for case in CASES if with_torch or case.library != "torch"):
            namespace = {"np": np, **NAMESPACES[library](Path(name))}
            held = _status("RssAnon")
            for case in (case for case in CASES if case.library == library):
                outcomes[case, "ndarray"] = _outcome(case, namespace, plain, small.copy(), held)
                outcomes[case, "hosted"] = _outcome(case, namespace, hosted, small, held)
                with hosted.write() as x, small.write() as y:
                    outcomes[case, "section"] = _outcome(case, namespace, x, y, held)
            if library == "h5py":
                namespace["file"].close()
    return outcomes


def _outcome(case: Case, namespace: dict[str, Any], array: Any, small: Any, held: int) -> str:
    code = compile(case.call, case.call, "eval")
    eval(code, _arguments(namespace, small))  # what is imported or compiled at the first call is not counted
    arguments = _arguments(namespace, array)
    array.sum()  # all its pages are mapped now, and counted as the process's own
    gc.collect()
    # A library that kept the memory of an earlier copy could copy again without growing.
    assert _status("RssAnon") - held < array.nbytes / 2, f"{case.library} keeps freed memory: nothing can be told"
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak becomes what is resident now
    before = _status("VmHWM")
    result = eval(code, arguments)
    grown = _status("VmHWM") - before
    del result
    return ZERO_COPY if grown < arguments[case.given].nbytes / 4 else COPIES


def _arguments(namespace: dict[str, Any], array: Any) -> dict[str, Any]:
    return {**namespace, "a": array, "v": array.reshape(-1), "part": array[: -(-len(array) // 10)]}


def _status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"the kernel does not tell {field}")
