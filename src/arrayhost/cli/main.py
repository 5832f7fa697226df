"""The way in from a shell: find click and rich, run the commands, turn the outcome into an exit status."""

import sys
from collections.abc import Sequence

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
        The exit status: 0 all right, 1 a wrong result, 2 bad usage, 130 interrupted.
    """
    try:
        return _run(args)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(f"arrayhost: the command line needs {missing}: pip install 'arrayhost[cli]'\n")
        return BAD_USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\narrayhost: interrupted\n")
        return INTERRUPTED


def _run(args: Sequence[str] | None) -> int:
    # Imported here, because these are an optional extra whose absence gets a message instead of a traceback.
    import click

    from arrayhost.cli.commands import arrayhost

    try:
        return int(arrayhost.main(args, prog_name="arrayhost", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # what click makes of Ctrl-C, having ended the line
        sys.stderr.write("arrayhost: interrupted\n")
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
