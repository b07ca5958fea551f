"""Making probes: collect, label, train, evaluate, publish."""
