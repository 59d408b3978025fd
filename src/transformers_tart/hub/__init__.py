"""Repositories on the Hub: pushes, cards and remote code."""
