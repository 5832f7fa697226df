"""The budgets of DESIGN.md section 5, measured: ``python -m benchmarks`` from the root of the repository.

Every row compares three ways to do the same work, taken in turn in one run so that a drift of the machine cancels:

- *ours*: arrayhost;
- *S*: the standard library's manager (`multiprocessing.managers.BaseManager`, ``register(..., exposed=[...])``);
- *N*: the same work on a private ndarray.

A figure is the median of its repetitions, and a ratio the median of the ratios of neighbouring repetitions.

Modules: `harness` (interleaving, medians, budgets), `hosts` (one host of each kind), `workers` (other processes), one
``rows_*`` module per idea, `report` (table, JSON, chart). A new row is a `harness.Case` in the ``CASES`` of its module.
"""
