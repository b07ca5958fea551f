"""Engine for GGUF files, over llama.cpp."""
