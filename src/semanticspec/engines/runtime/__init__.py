"""Components shared by the engines: argument checks, worker thread, prefix cache, sampling, scoring, pooling."""
