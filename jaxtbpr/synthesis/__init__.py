"""The stages that make person images: generate, filter, augment."""
