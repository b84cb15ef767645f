"""Screening on disk: thousands of structures through the stages, restartable, to one table."""
