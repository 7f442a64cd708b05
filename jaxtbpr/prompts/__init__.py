"""The texts that describe people who do not exist, one record for each of them."""
