"""Who may touch an array's memory when: locks that the kernel frees, and sequence words for readers without one."""
