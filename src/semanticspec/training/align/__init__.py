"""Aligns a draft: trains it, by LoRA, to say what the target says."""
