"""Backups that count once they were restored: made, proven, kept, and brought back."""
