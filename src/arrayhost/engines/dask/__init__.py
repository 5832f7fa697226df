"""Arrays in chunks on the workers of a Dask cluster. `opening` is what a manager imports, when it is first needed."""
