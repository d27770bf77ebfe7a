"""Tasks of a build on the workers of a Dask scheduler: connecting, what workers must agree on, what crosses.

What a stage does is not here, nor how it is divided: `pipeline` submits it. Only `connection.py` and what runs
on a worker import distributed, the extra `cluster`.
"""
