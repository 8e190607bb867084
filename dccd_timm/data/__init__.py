"""Images -> V views -> batches."""
