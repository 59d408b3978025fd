"""Training of reasoners on synthetic tasks."""
