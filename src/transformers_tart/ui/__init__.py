"""A web page for few-shot classification of texts; Gradio, of the extra `ui`, is imported when it is built."""

from transformers_tart.ui.page import serve


__all__ = ["serve"]
