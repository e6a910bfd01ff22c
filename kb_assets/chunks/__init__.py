"""Chunks: spans of a revision, cut along its structure."""
