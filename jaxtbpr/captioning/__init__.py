"""Stage caption: sentences that describe a person image, as people would write them."""
