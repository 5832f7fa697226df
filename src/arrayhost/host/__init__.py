"""The process that owns the arrays: what it stores, how it evaluates, whom it serves."""
