"""Times, shares of time and memory of this package, beside the published procedure, all in one run."""
