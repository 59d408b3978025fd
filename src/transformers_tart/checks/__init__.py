"""Checks of what is given, far from what they protect: arguments, tensors, fields of configs."""
