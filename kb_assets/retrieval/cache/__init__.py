"""Answers to repeated searches, kept for a while. Losing them only slows."""
