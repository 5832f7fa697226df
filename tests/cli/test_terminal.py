"""The shell in a terminal of 80 columns: what is shown, progress bars, and what Ctrl-C leaves."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import arrayhost
from arrayhost.cli import progress
from tests.cli.test_two_terminals import Terminal
from tests.support import assert_same, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.watchdog(150)]

Serve = Callable[..., subprocess.Popen[bytes]]
LONG = "a.rather.long.name.of.an.array.that.somebody.has.given"
# The command with a bar from the first byte on, and pieces so small that there is time to interrupt it.
SLOW = """
import sys
from arrayhost.cli import chunks, progress
from arrayhost.cli.main import main

progress._SHOWN_AFTER = float(sys.argv[1])
chunks._PIECE_BYTES = int(sys.argv[2])
sys.exit(main(sys.argv[3:]))
"""


@pytest.fixture
def terminal(serve: Serve, tmp_path: Path) -> Iterator[Terminal]:
    serve()
    (tmp_path / "slow.py").write_text(SLOW)
    made = Terminal(tmp_path, (24, 80))
    yield made
    made.close()


def plain(output: str) -> list[str]:
    """The lines without colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output).splitlines()


def test_tables_fit(terminal: Terminal) -> None:
    manager = arrayhost.connect()
    manager.create(LONG, (60_000_000,))
    manager["prices"] = np.zeros(3, [("day", "M8[s]"), ("close", "f8"), ("who", "U2")])
    with manager["prices"].write():
        shown = {what: plain(terminal.run(f"arrayhost {what}")) for what in
                 ("ls", "top --once", "show prices --no-values", "doctor")}  # fmt: skip
    for what, lines in shown.items():
        assert max(map(len, lines)) <= 80, what
    for what in ("ls", "top --once"):
        row = next(line for line in shown[what] if "(60000000,)" in line)  # neither cut nor wrapped
        assert "457.8 MiB" in row
        names = "".join(line.split()[0] for line in shown[what] if line and not line.startswith(("host", "PID")))
        assert LONG in names
    assert any(re.search(r"prices +record +\(3,\)", line) for line in shown["ls"])
    assert any(f"write {os.getpid()}" in line for line in shown["top --once"])
    assert any(line.endswith("python arrayhost top --once") or "arrayhost top --once" in line
               for line in shown["top --once"])  # fmt: skip


def test_bars_are_shown_and_an_interrupt_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    values = np.arange(2_000_000.0)
    np.save(tmp_path / "x.npy", values)
    run = f"{sys.executable} slow.py"
    assert progress._SHOWN_AFTER == 1.0
    assert not "".join(plain(terminal.run(f"{run} 1000 4000000 put x.npy --name quick")))
    output = terminal.run(f"{run} 0 4000000 put x.npy")
    assert re.search(r"put x.*15\.3/15\.3 MiB.*[MG]iB/s", "".join(plain(output)))
    output = terminal.run(f"{run} 0 4000000 get x y.npy")
    assert re.search(r"get x.*15\.3/15\.3 MiB", "".join(plain(output)))
    manager = arrayhost.connect()
    assert_same(manager["x"].copy(), values)
    assert_same(np.load(tmp_path / "y.npy"), values)

    for words, bar in (("put x.npy --name cut", "put cut"), ("get x z.npy", "get x")):
        terminal.shell.sendline(f"{run} 0 256 {words}")
        terminal.shell.expect_exact(f"{bar} \x1b")
        terminal.shell.sendintr()
        terminal.shell.expect_exact("arrayhost: interrupted")
        terminal.shell.sendline("echo ~sta''tus $? ~pro''mpt~")
        terminal.finish(130)
    assert sorted(manager) == ["quick", "x"]
    wait_until(lambda: len(manager.inspect().arrays) == 2, what="the host to free what was cut short")
    left = [name for name in os.listdir(tmp_path) if name not in ("slow.py", "x.npy", "y.npy", "arrayhost")]
    assert not [name for name in left if "npy" in name or name.startswith(".z")], left
