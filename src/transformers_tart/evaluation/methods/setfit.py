"""SetFit (arXiv 2209.11055): a sentence encoder fine-tuned on pairs of examples, then logistic regression."""

import tempfile
from dataclasses import replace

from torch import Tensor
from transformers.utils import cached_file

from transformers_tart.backbones.reference import BackboneReference
from transformers_tart.checks.packages import import_package
from transformers_tart.evaluation.methods.base import Support, TaskContext, seeded
from transformers_tart.evaluation.methods.baselines import fill_classes
from transformers_tart.evaluation.methods.models import Models
from transformers_tart.evaluation.methods.plain import join_pairs
from transformers_tart.inputs.texts import write_text


MODULES_FILE = "modules.json"  # of every repository of sentence-transformers


def setfit(context: TaskContext, support: Support) -> Tensor:
    """Train SetFit by its library, with the training arguments of its own, on a sentence encoder loaded anew.

    A prompt that is given stands before each text, in place of the one that the library would add. A class without an
    example has probability 0.

    Raises:
        ImportError: Without the library setfit.
        ValueError: When the backbone is no model of sentence-transformers.
    """
    import_package("setfit", "setfit", "The method setfit")
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    models = context.models
    reference = _find_sentence_encoder(models)
    texts, tests = (
        [str(write_text(text, models.prompt)) for text in join_pairs(some)]
        for some in (context.texts(support), context.test_texts)
    )
    columns = {"text": texts, "label": context.labels(support).tolist()}
    with tempfile.TemporaryDirectory() as folder, seeded(support.seed):
        encoder = SentenceTransformer(
            reference.path,
            revision=reference.place.get("revision"),
            device=str(models.device),
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},  # trained in that, however it is stored
        )
        if models.max_length is not None:
            encoder.max_seq_length = min(models.max_length, encoder.max_seq_length or models.max_length)
        if models.prompt is not None:
            encoder.default_prompt_name = None
        # composed here, since SetFitModel.from_pretrained would unpickle a head that lies beside the encoder
        model = SetFitModel(model_body=encoder, model_head=LogisticRegression(max_iter=2000))
        quiet = {"save_strategy": "no", "report_to": "none", "show_progress_bar": False}
        arguments = TrainingArguments(folder, seed=support.seed, **quiet)
        Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns)).train()
        found = model.predict_proba(tests, as_numpy=True, show_progress_bar=False)
    return fill_classes(found, model.model_head.classes_, context.task.num_classes)


def _find_sentence_encoder(models: Models) -> BackboneReference:
    """Return the reference to the backbone, checked to be a repository of sentence-transformers."""
    reference = replace(models.backbone_reference, subfolder=None)  # the folder of a module
    try:
        cached_file(reference.path, MODULES_FILE, **reference.place)
    except OSError as err:
        raise ValueError(
            f"SetFit fine-tunes models of sentence-transformers, and {models.title} is none: {MODULES_FILE} cannot be "
            "loaded. Give one, such as sentence-transformers/paraphrase-mpnet-base-v2, or leave this method out."
        ) from err
    return reference
