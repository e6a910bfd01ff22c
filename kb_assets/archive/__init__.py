"""Messages that grow old: copied to Parquet, verified, deleted, and still one query away."""
