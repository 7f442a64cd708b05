"""Data sets: readers, TFDS builders, grain loaders, image and text transforms, tokenizer."""
