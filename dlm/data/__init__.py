"""From documents to batches: corpora, tokenizers, token stores, windows and epochs."""
