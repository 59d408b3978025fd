"""The parts that synthetic tasks are made of: where inputs lie, what the labels are, how inputs are seen.

A new part is one function and one line in the registry of its file.
"""
