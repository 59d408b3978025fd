"""The page of transformers-tart as a Space; see `README.md`."""

import os

from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)
from transformers_tart.ui import serve


E5 = {"model": "intfloat/multilingual-e5-small", "prompt": "query: "}
MODEL = os.environ.get("MODEL")  # a variable in the settings of the Space

if __name__ == "__main__":
    serve(pipeline("tart-classification", **({"model": MODEL} if MODEL else E5)))
