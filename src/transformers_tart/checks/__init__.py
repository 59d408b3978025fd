"""Checks of arguments, tensors and fields of configs."""
