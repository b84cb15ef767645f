"""Molecular dynamics and ion transport; imports nothing of phonons."""
