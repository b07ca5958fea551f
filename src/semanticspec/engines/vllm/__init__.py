"""Engine over vLLM."""
