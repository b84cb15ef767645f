"""Crystals at finite temperature: Gaussian ensembles, local minima of snapshots, expansion."""
