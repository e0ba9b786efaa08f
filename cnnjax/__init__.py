"""Convolution, pooling and dropout networks in JAX and Flax: pure functions, explicit keys, evidence."""

__version__ = "0.1.0"
