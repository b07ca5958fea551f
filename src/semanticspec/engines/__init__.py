"""Inference engines. `base` defines their interface, `registry` finds them by name; each is imported on first use."""
