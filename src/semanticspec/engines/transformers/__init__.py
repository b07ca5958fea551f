"""Engine over Hugging Face transformers."""
