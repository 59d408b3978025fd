"""The commands of `transformers-tart`, one file each: `add_parser` declares one, `run` does it."""
