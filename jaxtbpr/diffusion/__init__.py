"""The image model and nothing about people: Stable Diffusion 1.x and 2.x in JAX."""
