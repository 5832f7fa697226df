"""Importing the library brings in NumPy and nothing heavier."""

from tests.support import run_python

# What only a front end, an optional engine or one seldom-used method needs; each is loaded when first used.
HEAVY = ["asyncio", "click", "dask", "distributed", "matplotlib", "pandas", "rich", "zarr"]


def test_import_loads_nothing_heavy():
    source = """
        import sys
        import numpy
        before = set(sys.modules)  # NumPy's own imports are NumPy's business
        import arrayhost
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
    """
    loaded = run_python(source).stdout.split()
    assert "arrayhost" in loaded
    assert sorted(set(loaded) & set(HEAVY)) == []
