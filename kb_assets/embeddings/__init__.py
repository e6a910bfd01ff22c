"""Embeddings: the vector of each distinct text, asked for once."""
