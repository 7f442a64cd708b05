"""Training data and models for text-based person retrieval, in JAX."""

__version__ = "0.1.0"
