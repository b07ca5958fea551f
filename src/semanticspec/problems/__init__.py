"""Reads problems, for training and for the benchmark: from registered sources, JSONL files and data sets."""
