"""OpenAI-compatible HTTP server for a pair of models. See docs/guides/serve.md."""
