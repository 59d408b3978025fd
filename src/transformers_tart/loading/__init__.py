"""Loading from repositories that need not be trusted: files, configs, weights and processors."""
