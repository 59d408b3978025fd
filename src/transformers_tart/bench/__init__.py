"""Times, profiles and peak memory of this package, beside the published procedure, measured in one run."""
