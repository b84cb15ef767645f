"""Gradients of what phonons give, all the way: through D(q), force constants and the relaxation."""
