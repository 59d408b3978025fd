"""Custom handler of Hugging Face Inference Endpoints: put it into the repository of a task as `handler.py`.

`requirements.txt` beside it holds `transformers-tart`. The body of a request is
`{"inputs": "free entry, WIN now", "parameters": {"top_k": 2}}`, or `inputs` is a list.
"""

from typing import Any

from transformers import pipeline

import transformers_tart  # noqa: F401 (registers the pipeline)


MOST_INPUTS = 256
PARAMETERS = ("top_k", "function_to_apply", "batch_size")  # no examples: the task is fitted


class EndpointHandler:
    def __init__(self, path: str = "") -> None:
        self.classify = pipeline("tart-classification", model=path)

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        inputs, parameters = data.get("inputs"), data.get("parameters") or {}
        if not isinstance(inputs, str | list) or len(inputs) == 0:
            raise ValueError('Give {"inputs": <a text, or a list of texts>}.')
        if isinstance(inputs, list) and len(inputs) > MOST_INPUTS:
            raise ValueError(f"inputs has {len(inputs)} texts; give at most {MOST_INPUTS}.")
        if unknown := sorted(set(parameters) - set(PARAMETERS)):
            raise ValueError(f"parameters has {unknown}; it may have {list(PARAMETERS)}.")
        found = self.classify(inputs, **parameters)
        return found if isinstance(inputs, list) else [found]
