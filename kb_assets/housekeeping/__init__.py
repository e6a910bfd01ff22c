"""Keeping the database small and quick: Dagster's old runs go, and tables are vacuumed."""
