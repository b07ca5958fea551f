"""Comparing decoding methods on the same problems: what is compared, how it is run, what the figures are."""
