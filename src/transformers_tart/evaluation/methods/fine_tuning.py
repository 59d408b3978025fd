"""Fine-tuning, of the head alone or of the backbone too: what TART leaves out.

The classifier is a linear layer on the mean of the last hidden states, for every kind of backbone, so that it differs
from TART in the training and not in what of a text is read.
"""

from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel, PreTrainedModel
from transformers import __version__ as transformers_version

from transformers_tart.backbones.forward import resolve_max_length, text_encoder
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext
from transformers_tart.evaluation.methods.optimizing import draw_batches, group_parameters, make_accelerator, optimize
from transformers_tart.evaluation.methods.pooled import Head, PooledEncoder
from transformers_tart.evaluation.methods.seeding import seeded
from transformers_tart.inputs.tokenization import tokenize


# Peak learning rates for 64 dimensions, of the backbone and of the head; in inverse proportion for more, so that 768
# have the usual 2.5e-5, and 2.5e-4 for adapters. On stories260K, of 64, three times the rate of "full" is better: 91.7
# and 58.0 % of train rows of sms_spam and trec6 in place of 88.3 and 55.7 (k=128, 300 held out).
LEARNING_RATES = {"head": 0.0, "last": 3e-4, "full": 3e-4, "lora": 3e-3}
HEAD_LEARNING_RATE = 1e-2
DIMENSIONS = 64
LAST_BLOCKS = 2
RANK, ALPHA = 8, 16
_REFUSED = (
    "LoRA needs a transformers and a peft that fit each other; transformers {} refuses peft {}: {}. Upgrade "
    "peft, or where there is no such version yet, install an older transformers."
)


def fine_tune(part: str = "full", learning_rate: float | None = None) -> Method:
    r"""
    Fine-tuning of a backbone that is loaded anew for every support set.

    Args:
        part (`str`, *optional*, defaults to `"full"`):
            What is trained besides the head: `"head"`: nothing; `"last"`: the last two blocks; `"full"`: everything;
            `"lora"`: adapters of rank 8 on every linear layer.
        learning_rate (`float`, *optional*):
            Peak for the backbone; by its width when not given.

    Returns:
        `Method`: raises a FloatingPointError when the loss is not finite, and an ImportError for `"lora"` without the
        library peft or with a version of it that transformers refuses.

    Raises:
        ValueError: When there is no such part.
    """
    if part not in LEARNING_RATES:
        raise ValueError(f'part is "{part}"; it must be one of {tuple(LEARNING_RATES)}.')

    def predict(context: TaskContext, support: Support) -> Tensor:
        with seeded(support.seed):
            return _fine_tune(context, support, part, learning_rate)

    return predict


def _fine_tune(context: TaskContext, support: Support, part: str, learning_rate: float | None) -> Tensor:
    models, tokenizer = context.models, context.models.tokenizer
    backbone, accelerator = models.load(AutoModel).float(), make_accelerator(models.device)
    limit = resolve_max_length(backbone, tokenizer, models.max_length)
    rows, tests = (tokenize(tokenizer, texts, limit) for texts in (context.texts(support), context.test_texts))
    choose_part(backbone, part)
    encoder = PooledEncoder(backbone, accelerator, tokenizer.pad_token_id, models.batch_size).eval()
    features, labels = encoder.embed(rows), context.labels(support).to(models.device)
    head = Head(features, context.task.num_classes).to(models.device)

    def losses(chosen: list[int]) -> Iterator[Tensor]:
        # a backbone that stays as it is need not read anything twice
        for some in [chosen] if part == "head" else encoder.parts(rows, chosen):
            found = features[some] if part == "head" else encoder([rows[i] for i in some])
            yield cross_entropy(head(found), labels[some], reduction="sum") / len(chosen)

    encoder.train()
    scale = DIMENSIONS / features.shape[1]
    rate = scale * LEARNING_RATES[part] if learning_rate is None else learning_rate
    groups = [*group_parameters(head, scale * HEAD_LEARNING_RATE), *group_parameters(encoder, rate)]
    optimize(groups, losses, draw_batches(len(rows), support.seed), accelerator)
    encoder.eval()
    head.eval()
    with torch.no_grad():
        return head(encoder.embed(tests)).double().softmax(-1).cpu()


def choose_part(backbone: PreTrainedModel, part: str) -> None:
    """Let gradients reach one part of a backbone only.

    Raises:
        ImportError: For `"lora"` without the library peft, or with a version that transformers refuses.
    """
    backbone.requires_grad_(part == "full")
    if part == "last":
        for block in _blocks(backbone)[-LAST_BLOCKS:]:
            block.requires_grad_(True)
    if part == "lora":
        _add_lora(text_encoder(backbone))


def _add_lora(encoder: PreTrainedModel) -> None:
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as err:
        raise ImportError('LoRA needs the library peft: pip install "transformers-tart[peft]".') from err
    except ImportError as err:
        raise ImportError(_REFUSED.format(transformers_version, version("peft"), err)) from err
    try:
        encoder.add_adapter(LoraConfig(target_modules="all-linear", r=RANK, lora_alpha=ALPHA))
    except ValueError as err:
        if "version of PEFT" not in str(err):  # the first thing that transformers checks
            raise
        raise ImportError(_REFUSED.format(transformers_version, version("peft"), err)) from err


def _blocks(backbone: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks: the list of modules with the most parameters, since it holds all other lists.

    Raises:
        ValueError: When there is none.
    """
    lists = [module for module in text_encoder(backbone).modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ValueError(f"{type(backbone).__name__} has no list of blocks; fine-tune another part of it.")
    return max(lists, key=lambda blocks: sum(parameter.numel() for parameter in blocks.parameters()))


__all__ = ["choose_part", "fine_tune"]
