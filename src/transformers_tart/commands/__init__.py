"""The commands of `transformers-tart`, a module each, in which `add_parser` adds the parser and `run` the action."""
