"""Loading parts of repositories that nobody has to trust."""
