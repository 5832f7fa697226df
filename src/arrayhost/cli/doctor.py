"""``arrayhost doctor``: what would fail on this machine, and how to mend it."""

from __future__ import annotations

import click
from rich.text import Text

from arrayhost.cli.checks import FAILS, FINE, WARNS, run_checks
from arrayhost.cli.options import address_option, json_option
from arrayhost.cli.output import console, print_json, table
from arrayhost.core.records import to_plain
from arrayhost.standing import default_address

_STYLES = {FINE: "green", WARNS: "yellow", FAILS: "red"}


@click.command()
@address_option
@json_option
def doctor(address: str | None, json_: bool) -> int:
    """Check the kernel, limits, memory and the standing host's place.

    Exit status: 0 if hosting works here, with or without warnings; 1 if something fails.
    """
    try:
        findings = run_checks(address or default_address())
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error
    if json_:
        print_json([to_plain(one) for one in findings])
    else:
        rows = [
            (
                Text(one.state, _STYLES[one.state]),
                one.check,
                f"{one.found}\n→ {one.remedy}" if one.remedy else one.found,
            )
            for one in findings
        ]
        console().print(table(("", "CHECK", "FOUND"), rows, folded=("FOUND",)))
    return 1 if any(one.state == FAILS for one in findings) else 0
