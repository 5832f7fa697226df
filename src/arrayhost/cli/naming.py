"""``arrayhost rm`` and ``arrayhost cp``: names taken away, arrays copied inside their host."""

from __future__ import annotations

import click

from arrayhost.cli.options import NAME, Failure, connected, host_options, json_option
from arrayhost.cli.output import print_json
from arrayhost.core.records import to_plain
from arrayhost.errors import ReferentExistsError, ReferentNotFoundError


@click.command()
@click.argument("names", type=NAME, nargs=-1, required=True, metavar="NAME...")
@host_options
@click.option("--missing-ok", is_flag=True, help="Names that are not there are no failure.")
@json_option
def rm(names: tuple[str, ...], address: str | None, missing_ok: bool, json_: bool) -> int:
    """Delete names.

    Each array goes with its last name and holder: programs that use it keep it until they are done.
    """
    manager = connected(address)
    removed, missing = [], []
    for name in names:
        try:
            del manager[name]
            removed.append(name)
        except ReferentNotFoundError:
            missing.append(name)
    if json_:
        print_json({"removed": removed, "missing": missing})
    if missing and not missing_ok:
        raise Failure(f"no array named {', '.join(map(repr, missing))}; 'arrayhost ls' lists those there are")
    return 0


@click.command()
@click.argument("source", type=NAME)
@click.argument("target", type=NAME)
@host_options
@click.option("--overwrite", is_flag=True, help="Let TARGET change over if there is one.")
@json_option
def cp(source: str, target: str, address: str | None, overwrite: bool, json_: bool) -> int:
    """Copy an array, with its attributes, under another name; inside the host, in one consistent state."""
    manager = connected(address)
    original = manager[source]
    copy = manager.array(original)
    copy.attrs.replace(original.attrs.copy())
    try:
        manager.put(target, copy, overwrite=overwrite)
    except ReferentExistsError as error:
        raise Failure(f"there is an array named {target!r} already; choose another name or give --overwrite") from error
    if json_:
        print_json(to_plain(manager.inspect_array(target)))
    return 0
