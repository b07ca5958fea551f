"""Engine for Hugging Face transformers models."""
