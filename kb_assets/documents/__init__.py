"""Documents: found in sources, read, parsed, and stored as revisions."""
