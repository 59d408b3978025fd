"""Export of fitted tasks, to programs of ONNX or PyTorch that need neither this package nor transformers."""

from transformers_tart.export.folder import FORMATS, export_task


__all__ = ["FORMATS", "export_task"]
