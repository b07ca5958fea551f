"""Checks of a pair: does it fit together, what does each step cost on this machine, can speculation pay."""
