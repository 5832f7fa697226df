"""The command line: ``python -m benchmarks [--quick] [--json FILE] [--chart FILE.png] [--only ROW]``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    report,
    rows_dask,
    rows_dask_views,
    rows_handoff,
    rows_hosting,
    rows_import,
    rows_items,
    rows_memory,
    rows_pace,
    rows_sections,
    rows_small,
    rows_sum,
    rows_tcp,
)
from benchmarks.harness import FULL, QUICK, Case, Row, Scale, run

PLAIN_WIDTH = 160
"""Columns of the table where no terminal says how many there are."""

CASES: tuple[Case, ...] = (
    *rows_sum.CASES,
    *rows_hosting.CASES,
    *rows_items.CASES,
    *rows_small.CASES,
    *rows_sections.CASES,
    *rows_pace.CASES,
    *rows_handoff.CASES,
    *rows_memory.CASES,
    *rows_tcp.CASES,
    *rows_dask.CASES,
    *rows_import.CASES,
    *rows_dask_views.CASES,
    *rows_hosting.INFORMATIVE,
    *rows_items.INFORMATIVE,
    *rows_small.INFORMATIVE,
)
"""All rows, in the order of the table in DESIGN.md; those without a budget last."""


def run_all(cases: list[Case], scale: Scale, console: Console) -> list[Row]:
    """Measure the cases one after the other, with a progress display if the console is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    # A slow refresh: the display's own thread shall not disturb what is measured.
    with Progress(
        *columns, console=console, disable=not console.is_terminal, refresh_per_second=1, transient=True
    ) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=case.key)
            rows.append(run(case, scale))
            progress.advance(task)
    return rows


@click.command(help=__doc__)
@click.option(
    "--quick", is_flag=True, help="Smaller arrays, fewer repetitions; the budgets are meant for the full run."
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to FILE.")
@click.option("--chart", "chart_path", type=click.Path(dir_okay=False, path_type=Path), help="Draw a PNG.")
@click.option(
    "--only", multiple=True, metavar="ROW", type=click.Choice([case.key for case in CASES]),
    help="Measure this row only; may be repeated. Rows: " + ", ".join(case.key for case in CASES) + ".",
)  # fmt: skip
def main(quick: bool, json_path: Path | None, chart_path: Path | None, only: tuple[str, ...]) -> None:
    """Measure, report, and exit with status 1 if a row failed (a missed budget is not a failure)."""
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    scale = QUICK if quick else FULL
    machine = report.machine_facts()
    rows = run_all([case for case in CASES if not only or case.key in only], scale, console)
    report.print_table(console, rows, scale, machine)
    if json_path is not None:
        report.write_json(json_path, rows, scale, machine)
    if chart_path is not None:
        report.write_chart(chart_path, rows, scale, machine)
    sys.exit(any(row.verdict == "error" for row in rows))


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
