"""The way in from a shell: find click and rich, run the commands, turn the outcome into an exit status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from arrayhost.errors import ArrayHostError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
_EXTRA = ("click", "rich")


def main(args: Sequence[str] | None = None) -> int:
    """Run the ``arrayhost`` command.

    Parameters
    ----------
    args : sequence of str, optional
        The words after ``arrayhost``; by default those of this process.

    Returns
    -------
    int
        The exit status: 0 all right, 1 it could not be done or a result is wrong, 2 bad usage, 130 interrupted.
    """
    try:
        return _run(args)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        return _say(f"the command line needs {missing}: pip install 'arrayhost[cli]'", BAD_USAGE)
    except ArrayHostError as error:
        return _say(str(error), FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("\narrayhost: interrupted\n")
        return INTERRUPTED


def _run(args: Sequence[str] | None) -> int:
    # Imported here, because these are an optional extra whose absence gets a message instead of a traceback.
    import click

    from arrayhost.cli.commands import arrayhost

    try:
        return int(arrayhost.main(args, prog_name="arrayhost", standalone_mode=False) or 0)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "arrayhost"
        return _say(f"{error.format_message()} (see '{command} --help')", error.exit_code)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except click.Abort:  # what click makes of Ctrl-C, having ended the line
        sys.stderr.write("arrayhost: interrupted\n")
        return INTERRUPTED


def _say(problem: str, status: int) -> int:
    """Write one line, whatever the error's text looks like."""
    sys.stderr.write(f"arrayhost: {' '.join(problem.split())}\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
