"""Second stage: decides which segments of a context mean the same."""
