"""Plain values: layouts, handles, leases, names. No I/O, no clock, no process."""
