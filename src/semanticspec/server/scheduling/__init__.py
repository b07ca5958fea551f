"""Admission queue and running requests."""
