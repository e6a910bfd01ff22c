"""A Dagster data platform for knowledge bases on PostgreSQL and pgvector."""
