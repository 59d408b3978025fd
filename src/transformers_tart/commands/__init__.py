"""The commands of `transformers-tart`: a module each, with `SUMMARY`, `EXAMPLE`, `add_options` and `run`."""
