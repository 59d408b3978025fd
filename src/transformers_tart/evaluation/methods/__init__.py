"""Methods to compare, by name in `registry`; each maps a task and a support set to probabilities."""
