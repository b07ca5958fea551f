"""Request scheduling: admission queue, jobs, and the decoding of each output."""
