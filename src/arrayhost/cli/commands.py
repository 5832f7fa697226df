"""The commands of ``arrayhost``: one group, one line here for each."""

import click

from arrayhost import __version__
from arrayhost.cli.demo.command import demo
from arrayhost.cli.doctor import doctor
from arrayhost.cli.getting import get
from arrayhost.cli.listing import ls
from arrayhost.cli.naming import cp, rm
from arrayhost.cli.putting import put
from arrayhost.cli.serve import serve
from arrayhost.cli.showing import show
from arrayhost.cli.stop import stop
from arrayhost.cli.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arrayhost")
def arrayhost() -> None:
    """Share NumPy arrays between processes.

    Exit status: 0 all right, 1 it could not be done, 2 bad usage, 130 interrupted.
    """


for _command in (serve, stop, ls, show, put, get, rm, cp, top, doctor, demo):
    arrayhost.add_command(_command)
