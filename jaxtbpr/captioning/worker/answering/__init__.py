"""Answers tasks of instructions and images by a model; see `exchange` for the folder."""
