"""Repositories on the Hub: cards, pushes, and what a repository carries for others."""
