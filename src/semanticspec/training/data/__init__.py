"""Collecting: what target and draft say in each context."""
