"""Work on many machines: jobs of a batch system, or the workers of a Dask scheduler. Needs the extra `cluster`.

Importing this package imports nothing of Dask; opening a cluster does.
"""
