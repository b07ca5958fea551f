"""Methods of other systems."""
