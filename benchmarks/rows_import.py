"""What ``import arrayhost`` adds to NumPy's own import."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from benchmarks.harness import Budget, Case, Measurement, Scale, interleave

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED_IMPORT = """\
import time
{before}
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def measure_import(scale: Scale) -> Measurement:
    """Time imports in fresh interpreters: ours and S (multiprocessing.managers) after NumPy's, and N NumPy's own.

    The first round is not counted: it compiles. Bytecode goes to a directory of its own, because a source tree may have
    none and PYTHONDONTWRITEBYTECODE, where it is set, would have the interpreters compile again each time.
    """
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        contenders = {
            "ours": timed_import("arrayhost", "import numpy", environment),
            "S": timed_import("multiprocessing.managers", "import numpy", environment),
            "N": timed_import("numpy", "", environment),
        }
        return Measurement(interleave(contenders, scale.fast))


def timed_import(module: str, before: str, environment: dict[str, str]) -> Callable[[], float]:
    """Return a sampler: seconds of one import in an interpreter of its own, after the statement `before`."""
    command = [sys.executable, "-c", TIMED_IMPORT.format(module=module, before=before)]

    def sample() -> float:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise RuntimeError(f"import {module} failed:\n{done.stderr}")
        return float(done.stdout)

    return sample


CASES = (
    Case(
        "import", "import arrayhost, beyond NumPy's import", measure_import, Budget("ours", 60, "ms", unit_value=1e-3)
    ),
)
