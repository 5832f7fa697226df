"""Coverage-guided fuzzing with atheris (extra ``fuzz``): of the frame decoder, and of what answers a request.

``python -m tests.hostile.guided [decoder|requests] [RUNS] [SEED]`` runs one or both, in processes of their own.
Coverage is seen only in the process that is fuzzed, so no socket is between the two: `requests` hands decoded frames to
the host's end of a connection of a peer that is not trusted. The mutator's frames are what atheris begins with.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

TARGETS = ("decoder", "requests")
N_SEEDS = 400
_MAX_BYTES = 4096
# Of one run, and of the process.
_MAX_SECONDS, _MAX_MIB = 20, 2048


def main(arguments: list[str]) -> int:
    """Run the targets one after the other; return the exit status."""
    targets = [arguments.pop(0)] if arguments and arguments[0] in TARGETS else TARGETS
    runs = int(arguments[0]) if arguments else 1_000_000
    seed = int(arguments[1]) if len(arguments) > 1 else int.from_bytes(os.urandom(4), "little")
    return max(_run(target, runs, seed) for target in targets)


def _run(target: str, runs: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="arrayhost-fuzz-") as folder:
        print(f"{target}: {runs} runs, seed {seed}", flush=True)
        options = [
            f"-runs={runs}", f"-seed={seed or 1}", f"-max_len={_MAX_BYTES}", f"-timeout={_MAX_SECONDS}",
            f"-rss_limit_mb={_MAX_MIB}", "-print_final_stats=1", f"-artifact_prefix={folder}-", folder,
        ]  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "tests.hostile.guided", "--be", target, *options], check=False
        ).returncode


def _be(target: str, options: list[str]) -> NoReturn:
    try:
        import atheris
    except ImportError as error:
        raise SystemExit("coverage-guided fuzzing needs atheris: pip install 'arrayhost[fuzz]'") from error
    with atheris.instrument_imports(include=["arrayhost"]):
        from tests.hostile import guided_targets
    for k, seed in enumerate(guided_targets.seeds(target, N_SEEDS)):
        Path(options[-1], f"seed-{k}").write_bytes(seed[:_MAX_BYTES])
    one: Any = getattr(guided_targets, target)()
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()
    raise SystemExit(0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be"]:
        _be(sys.argv[2], sys.argv[3:])
    sys.exit(main(sys.argv[1:]))
