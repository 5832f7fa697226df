"""The README's story, in two real terminals: a host in one, commands and a program in the other."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pexpect
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import arrayhost
from arrayhost.cli.commands import arrayhost as commands
from arrayhost.client.finding import forget_sessions
from tests.support import assert_same, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PROMPT = "~prompt~"


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of one language in a section of the README."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, f"the README has no section {section!r}"
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


SERVE, STORY = blocks("From a shell", "sh")
(UPDATE,) = blocks("From a shell", "python")
LINES = [line.partition("  #")[0].strip() for line in STORY.splitlines()]


@pytest.fixture
def folder(place: Path, tmp_path: Path) -> Path:
    """The files that the story begins with."""
    digits = load_digits()
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "china.png")
    np.savez(tmp_path / "digits.npz", images=digits.images, target=digits.target)
    days = np.arange("2024-01-01", "2024-04-10", dtype="M8[D]")
    rows = [f"{day},{100 + number / 10},{'up' if number % 2 else 'down'}" for number, day in enumerate(days)]
    (tmp_path / "prices.csv").write_text("\n".join(["day,close,move", *rows]) + "\n")
    table = pa.table({"sensor": np.arange(50) % 5, "value": np.linspace(0, 1, 50)})
    pa.parquet.write_table(table, tmp_path / "readings.parquet")
    (tmp_path / "update.py").write_text(UPDATE)
    return tmp_path


class Terminal:
    """A shell in a terminal."""

    def __init__(self, folder: Path, dimensions: tuple[int, int] = (60, 220)) -> None:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TERM": "xterm"}
        self.shell = pexpect.spawn(
            "/bin/bash", ["--norc", "--noprofile"], cwd=str(folder), env=environment, dimensions=dimensions,
            encoding="utf-8", timeout=40, echo=False,
        )  # fmt: skip
        # Written in two parts, so that the terminal's echo of the command is not taken for its output.
        self.shell.sendline(
            "bind 'set enable-bracketed-paste off' 2>/dev/null; set -m; PS1=''; PS2=''; echo ~pro''mpt~"
        )
        self.shell.expect_exact(PROMPT)

    def run(self, command: str, status: int = 0) -> str:
        """Run a command; return what it wrote. It must end with this status."""
        self.shell.sendline(f"{command}\necho ~sta''tus $? ~pro''mpt~")
        return self.finish(status)

    def finish(self, status: int = 0) -> str:
        self.shell.expect(rf"~status (\d+) {PROMPT}")
        output = str(self.shell.before)
        assert self.shell.match.group(1) == str(status), output
        return output

    def close(self) -> None:
        self.shell.sendline("kill $(jobs -p) 2>/dev/null; exit")
        self.shell.close(force=True)


@pytest.fixture
def terminals(folder: Path) -> Iterator[tuple[Terminal, Terminal]]:
    pair = Terminal(folder), Terminal(folder)
    yield pair
    pair[0].shell.sendintr()
    for terminal in pair:
        terminal.close()
    forget_sessions()


@pytest.mark.slow
@pytest.mark.watchdog(150)
def test_the_readmes_story(terminals: tuple[Terminal, Terminal], folder: Path) -> None:
    first, second = terminals
    first.shell.sendline(f"{SERVE.strip()}; echo ~sta''tus $? ~pro''mpt~")
    first.shell.expect("hosts arrays at unix:")
    for line in LINES:
        if line == "arrayhost top":
            second.shell.sendline(line)
            # The program's writes show, in a table that is renewed.
            for _ in range(2):
                second.shell.expect(r"prices +\(100,\)[^\n]* [1-9]\d*\.\d")
            # The terminal forgets with Ctrl-C what was typed before.
            second.shell.sendintr()
            second.shell.expect_exact("\x1b[?1049l")  # back from the whole screen
            second.shell.sendline("echo ~sta''tus $? ~pro''mpt~")
            second.finish()
            continue
        if line.startswith("kill"):
            before = arrayhost.connect()["prices"]["close"].copy()
            assert before[0] > 100  # the program has worked
        if line.startswith("arrayhost show prices"):
            manager = arrayhost.connect()
            wait_until(lambda: manager.inspect_array("prices").holders, timeout=40, what="the program")  # noqa: B023  # called in this round only
        output = second.run(line)
        if line == "arrayhost ls":
            for name in ("china", "digits.images", "digits.target", "prices", "sensors"):
                assert name in output
        if line.startswith("arrayhost show prices"):
            assert "update.py" in output
            assert "mean" in output
        if line.startswith("arrayhost get"):
            assert_same(np.load(folder / "copy.npy"), load_sample_image("china.jpg"))
    assert first.finish()
    assert (folder / "plot.png").stat().st_size > 1000
    with pytest.raises(arrayhost.HostGoneError):
        arrayhost.connect()


def test_every_command_in_the_readme_exists() -> None:
    lines = [line for block in blocks("From a shell", "sh") for line in block.splitlines()]
    used = [shlex.split(line, comments=True) for line in lines if line.startswith("arrayhost ")]
    assert {line[1] for line in used} >= {"serve", "put", "ls", "show", "top", "get", "cp", "rm", "stop", "doctor"}
    for line in used:
        command = commands.commands[line[1]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in line[2:] if word.startswith("--")} <= known, line
    section = README.partition("\n## From a shell\n")[2].partition("\n## ")[0]
    mentioned = README.partition("\n## A standing host\n")[2].partition("\n## ")[0] + section
    options = {option for command in commands.commands.values() for parameter in command.params
               for option in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip
    assert set(re.findall(r"(?<![\w-])--[a-z-]+", mentioned)) - {"--user"} <= options
