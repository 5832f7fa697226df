"""What a run tells: the table, the JSON document and the chart."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from benchmarks.harness import Row, Scale

STYLES = {"met": "green", "missed": "bold red", "error": "bold red", "info": "dim"}
FIGURES = ("ours", "S", "N", "ours / S", "ours / N", "measured")
WIDE = 130
"""Columns of a terminal from which on the table shows all figures; S, N and the ratios are left out below."""
COLOURS = {"met": "#1a7f5a", "missed": "#c8442b"}


def machine_facts() -> dict[str, Any]:
    """Return what a reader needs to judge the figures by."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "transparent_hugepage": _selected(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "shmem_enabled": _selected(Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "arrayhost": _version("arrayhost"),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _selected(switch: Path) -> str | None:
    """Return the bracketed word of a kernel switch such as ``always [madvise] never``."""
    try:
        text = switch.read_text()
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or text.strip()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def document(rows: Sequence[Row], scale: Scale, machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything a run found, as plain values for JSON. Samples are seconds, or bytes where `unit` is "B"."""
    return {"machine": machine, "scale": vars(scale).copy(), "rows": [_row_document(row) for row in rows]}


def _row_document(row: Row) -> dict[str, Any]:
    measurement, budget = row.measurement, row.budget
    return {
        "key": row.key,
        "title": row.title,
        "verdict": row.verdict,
        "value": row.value,
        "budget": budget and {"figure": budget.figure, "limit": budget.limit, "aim": budget.aim, "text": str(budget)},
        "medians": row.medians,
        "ratios": row.ratios,
        "unit": measurement and measurement.unit,
        "samples": measurement.samples if measurement else {},
        "notes": measurement.notes if measurement else [],
        "violations": measurement.violations if measurement else [],
        "error": row.error,
        "traceback": row.traceback,
        "seconds": row.seconds,
    }


def write_json(path: Path, rows: Sequence[Row], scale: Scale, machine: dict[str, Any]) -> None:
    """Write `document` to a file."""
    path.write_text(json.dumps(document(rows, scale, machine), indent=1) + "\n")


def print_table(console: Console, rows: Sequence[Row], scale: Scale, machine: dict[str, Any]) -> None:
    """Print the rows, what the table has no room for, and the machine."""
    table = Table(title=f"arrayhost: budgets, large array = {scale.elements:,} float64", title_justify="left")
    headings = FIGURES if console.width >= WIDE else ("ours", "measured")
    table.add_column("work", min_width=20)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("budget")
    table.add_column("", no_wrap=True)
    for row in rows:
        figures = dict(zip(FIGURES, _figures(row), strict=True))
        budget = "" if row.budget is None else str(row.budget)
        verdict = f"[{STYLES[row.verdict]}]{row.verdict}[/]"
        table.add_row(escape(row.title), *(figures[heading] for heading in headings), budget, verdict)
    console.print(table)
    for row in rows:
        for remark in _remarks(row):
            console.print(f"  {row.key}: {remark}", style="red" if row.error else None, markup=False, highlight=False)
    console.print(_caption(machine), markup=False, highlight=False)


def _figures(row: Row) -> list[str]:
    """Return the cells under `FIGURES`."""
    measurement, value = row.measurement, row.value
    unit = measurement.unit if measurement else "s"
    medians = [format_value(row.medians[who], unit) if who in row.medians else "" for who in ("ours", "S", "N")]
    ratios = [format_number(row.ratios[name]) if name in row.ratios else "" for name in ("ours/S", "ours/N")]
    measured = "" if value is None or row.budget is None else f"{format_number(value)} {row.budget.unit.split()[0]}"
    return [*medians, *ratios, measured]


def _remarks(row: Row) -> list[str]:
    if row.measurement is None:
        return [row.error or "not measured"]
    references = [
        f"{who} {format_value(median, row.measurement.unit)}, ours / {who} {format_number(row.ratios[f'ours/{who}'])}"
        for who, median in row.medians.items()
        if who not in ("ours", "S", "N")
    ]
    errors = [row.error] if row.error else []
    return [*references, *row.measurement.notes, *row.measurement.violations, *errors]


def _caption(machine: dict[str, Any]) -> str:
    return (
        "S: stdlib manager; N: private ndarray; medians of interleaved repetitions, ratios: medians of pairwise ones.\n"
        f"{machine['cpu']}, {machine['cpus']} cpus, load {machine['load_average']:.1f} at the start; "
        f"Linux {machine['kernel']}; Python {machine['python']}; NumPy {machine['numpy']}; "
        f"arrayhost {machine['arrayhost']}; {machine['date']}"
    )


def format_value(value: float, unit: str) -> str:
    """Format seconds or bytes with a unit that suits their size."""
    steps = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")) if unit == "B" else ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))
    for size, name in steps:
        if abs(value) >= size:
            return f"{format_number(value / size)} {name}"
    return f"{value:.0f} B" if unit == "B" else f"{format_number(value / 1e-9)} ns"


def format_number(value: float) -> str:
    """Format a positive number to three significant digits, without exponent."""
    for bound, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= bound:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.4f}"


def write_chart(path: Path, rows: Sequence[Row], scale: Scale, machine: dict[str, Any]) -> None:
    """Draw every row's figure against its budget as a PNG.

    Rows have different units, so each is drawn as the part of its budget that it uses: 1 is the budget, left of it is
    met. For "at least" budgets the part is limit / value.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row.budget is not None]
    figure = Figure(figsize=(13, 1.6 + 0.5 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for position, row in enumerate(drawn):
        _draw_row(axes, position, row)
    axes.axvline(1, color="#444444", linewidth=1.2)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.25), max(high, 4.0))
    axes.set_yticks(range(len(drawn)), [row.title for row in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(lambda tick, _position: f"{tick:g}")
    axes.set_xlabel("part of the budget used (log axis): 1 is the budget, less is better")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"arrayhost against its budgets, {scale.elements:,} float64 per large array", loc="left")
    figure.supxlabel(_caption(machine), fontsize=7, color="#555555", x=0.01, ha="left")
    figure.savefig(path, format="png", dpi=150)


def _draw_row(axes: Any, position: int, row: Row) -> None:
    budget, value = row.budget, row.value
    if budget is None:
        return
    colour = COLOURS["met" if row.verdict == "met" else "missed"]
    if value is None or row.error is not None:
        label = f"error (budget {budget})"
    else:
        label = f"{format_number(value)}  {row.verdict} (budget {budget})"
        part = budget.limit / value if budget.at_least else value / budget.limit
        axes.plot([1, part], [position, position], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(part, position, "o" if row.verdict == "met" else "X", color=colour, markersize=9)
    # x in parts of the axes' width: a column of its own right of the plot.
    axes.text(1.02, position, label, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=colour)
