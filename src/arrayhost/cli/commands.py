"""The commands of ``arrayhost``: one group, one line here for each."""

import click

from arrayhost.cli.demo.command import demo


@click.group()
def arrayhost() -> None:
    """Share NumPy arrays between processes."""


arrayhost.add_command(demo)
