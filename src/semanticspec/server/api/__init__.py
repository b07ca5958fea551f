"""The HTTP side: schemas, replies, errors."""
