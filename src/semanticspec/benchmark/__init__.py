"""Compares decoding methods on the same problems: accuracy, speed, and where the time goes."""
