"""The right to be forgotten: hidden at once, rewritten out of the archive, never read in again."""
