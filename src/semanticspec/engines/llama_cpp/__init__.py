"""Engine over llama.cpp."""
