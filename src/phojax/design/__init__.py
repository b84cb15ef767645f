"""Inverse design: crystals that follow the gradient of what their phonons give."""
