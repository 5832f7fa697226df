"""Shared memory: segments, their mappings, how much there is, and the control table."""
