"""The OpenAI-compatible server and its page: `semanticspec serve` (extra `server`)."""
