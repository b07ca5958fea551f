"""First stage: collects segments that target and draft write in each context, with their hidden states."""
