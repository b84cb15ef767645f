"""Descriptors: numbers that say how a crystal vibrates, from its modes or its D(q)."""
