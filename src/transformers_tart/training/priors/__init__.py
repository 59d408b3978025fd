"""The parts of synthetic tasks: inputs, labels, and presentations, which turn inputs into embeddings.

A new part is one function and one line in the registry of its file.
"""
