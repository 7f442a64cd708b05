"""Stable Diffusion 1.x and 2.x in JAX: networks, samplers, weights in and out, training."""
