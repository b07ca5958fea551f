"""Labelling: which segments mean the same."""
