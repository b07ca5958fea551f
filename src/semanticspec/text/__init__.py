"""Text handling for a model: tokenizer, chat template, segment boundaries, translation between vocabularies."""
