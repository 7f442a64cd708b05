"""The isolated worker: run this folder with a Python that has what its requirements list.

Nothing here imports jax or the rest of jaxtbpr, and nothing of jaxtbpr imports an engine of it.
"""
