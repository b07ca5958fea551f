"""Replays recorded decisions on models of a real size with random weights: seconds without the models themselves."""

NOTE = "Decisions are replayed, not made, and all weights are random: this measures seconds, never answers."
"""Stands in everything a replay writes or prints."""
