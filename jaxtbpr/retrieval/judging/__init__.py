"""Scores of (image, caption) pairs and measures of data sets, by a CLIP."""
