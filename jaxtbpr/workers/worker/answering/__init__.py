"""Answers tasks about images by a model; see `exchange` for the folder."""
