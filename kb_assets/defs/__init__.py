"""Dagster: assets, checks, jobs and schedules over the library."""
