"""Editing of images by control of the attention: what is made of the prompts, controls, loops."""
