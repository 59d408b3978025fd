"""Fine-tuning of a classification head, alone or with the backbone.

The head is a linear layer on the last hidden states: where the model has a view at the end of a template, as language
models have by default, it reads the first such view there, else the mean over a text. So fine-tuning differs from TART
in the training and not in the inputs.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import is_initialized
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from transformers_tart.backbones.dtype import computes_bfloat16
from transformers_tart.backbones.forward import resolve_max_length, text_encoder, without_cache
from transformers_tart.checks.packages import import_package
from transformers_tart.embeddings.batching import Batcher, move, run_batches
from transformers_tart.embeddings.phrases import Phrasing
from transformers_tart.embeddings.rows import add_parts, parts_of
from transformers_tart.evaluation.methods.base import Method, Support, TaskContext, seeded
from transformers_tart.inputs.texts import Text
from transformers_tart.inputs.tokenization import collate, tokenize, tokenize_parts
from transformers_tart.inputs.views import View
from transformers_tart.modeling_base import TartPreTrainedModel
from transformers_tart.reasoners.kv_cache import accepts


# Peak learning rates for 64 dimensions, of the backbone and of the head; in inverse proportion for more, so that 768
# have the usual 2.5e-5, and 2.5e-4 for adapters. On stories260K, of 64, three times the rate of "full" is better: 91.7
# and 58.0 % of train rows of sms_spam and trec6 in place of 88.3 and 55.7 (k=128, 300 held out).
LEARNING_RATES = {"head": 0.0, "last": 3e-4, "full": 3e-4, "lora": 3e-3}
HEAD_LEARNING_RATE = 1e-2
DIMENSIONS = 64
LAST_BLOCKS = 2
RANK, ALPHA = 8, 16
DROPOUT = 0.1
BATCH_SIZE, EPOCHS, MIN_STEPS = 16, 10, 40
WARMUP = 0.1  # of the steps
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0

Rows = Sequence[dict[str, list[int]]]
# The loss of a batch, given the indices of its examples, as terms to add up: one for each forward pass.
Losses = Callable[[list[int]], Iterable[Tensor]]


def fine_tune(part: str = "full") -> Method:
    """Return fine-tuning as a method. Each support set trains its own copy of the backbone.

    The part of the backbone that is trained with the head: `"head"`: none; `"last"`: the last two blocks; `"full"`:
    all; `"lora"`: adapters of rank 8 on every linear layer. The peak learning rate goes by the width of the backbone.
    """
    if part not in LEARNING_RATES:
        raise ValueError(f'part is "{part}"; it must be one of {tuple(LEARNING_RATES)}.')

    def predict(context: TaskContext, support: Support) -> Tensor:
        with seeded(support.seed):
            return _fine_tune(context, support, part)

    return predict


def _fine_tune(context: TaskContext, support: Support, part: str) -> Tensor:
    texts, models, tokenizer = (context.texts(support), context.test_texts), context.models, context.models.tokenizer
    # on a CPU with AVX512-BF16, a step of SmolLM2-135M takes 0.66 of the time that it takes in float32
    is_open = not is_initialized() and computes_bfloat16(models.device)  # where accelerate is not configured already
    accelerator = Accelerator(mixed_precision="bf16" if is_open else None)
    backbone = copy.deepcopy(context.model.backbone).float()
    view = choose_view(context.model)
    rows, tests = (write_rows(context.model, view, tokenizer, some) for some in texts)
    choose_part(backbone, part)
    pooling = "mean" if view is None else "last"
    encoder = PooledEncoder(backbone, accelerator, tokenizer.pad_token_id, models.batch_size, pooling).eval()
    features, labels = encoder.embed(rows), context.labels(support).to(models.device)
    head = Head(features, context.task.num_classes).to(models.device)

    def losses(chosen: list[int]) -> Iterator[Tensor]:
        # a frozen backbone need not read anything twice
        for some in [chosen] if part == "head" else encoder.parts(rows, chosen):
            found = features[some] if part == "head" else encoder([rows[i] for i in some])
            yield cross_entropy(head(found), labels[some], reduction="sum") / len(chosen)

    encoder.train()
    scale = DIMENSIONS / features.shape[1]
    rates: dict[nn.Module, float] = {head: HEAD_LEARNING_RATE, encoder: LEARNING_RATES[part]}
    groups = [group for module, rate in rates.items() for group in group_parameters(module, scale * rate)]
    optimize(groups, losses, draw_batches(len(rows), support.seed), accelerator)
    encoder.eval()
    head.eval()
    with torch.no_grad():
        return head(encoder.embed(tests)).double().softmax(-1).cpu()


def choose_view(model: TartPreTrainedModel) -> View | None:
    """Return the first view of a model that ends a template around a text, `None` where it has none."""
    options = model.config.embedding_options
    views = () if options.has_prompt else options.views
    return next((view for view in views if view.template is not None and view.pooling == "last"), None)


def write_rows(
    model: TartPreTrainedModel, view: View | None, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]
) -> Rows:
    """Return the token ids of texts after the prompt of a model, inside the template of a view if there is one."""
    texts = model.embedder().write(texts)
    limit, context = model.config.max_length, resolve_max_length(model.backbone, tokenizer)
    if view is None:
        return tokenize(tokenizer, texts, resolve_max_length(model.backbone, tokenizer, limit))
    phrasing = Phrasing.of([view], tokenizer, model.traits.is_causal, context)
    passage, parts = phrasing.passages[0], tokenize_parts(tokenizer, texts)
    start = passage.phrase.literals[0]
    read = [parts_of(row) for row in add_parts(parts, parts, texts)]
    return [{"input_ids": [*start, *phrasing.continuation(passage, [view], each, limit).ids]} for each in read]


def choose_part(backbone: PreTrainedModel, part: str) -> None:
    """Let gradients reach one part of a backbone only."""
    backbone.requires_grad_(part == "full")
    if part == "last":
        lists = [module for module in text_encoder(backbone).modules() if isinstance(module, nn.ModuleList)]
        if not lists:
            raise ValueError(f"{type(backbone).__name__} has no list of blocks; fine-tune another part of it.")
        # the blocks are the list with the most parameters, which contains all other lists
        blocks = max(lists, key=lambda own: sum(parameter.numel() for parameter in own.parameters()))
        blocks[-LAST_BLOCKS:].requires_grad_(True)
    if part == "lora":
        peft = import_package("peft", "peft", "LoRA")
        adapters = peft.LoraConfig(target_modules="all-linear", r=RANK, lora_alpha=ALPHA)
        # by peft alone: some versions of transformers refuse the newest peft
        peft.inject_adapter_in_model(adapters, text_encoder(backbone))


class PooledEncoder(nn.Module):
    """The last hidden states of a text model, the mean over each text or that of its last token.

    It computes in an accelerator's precision. `batch_size` is the largest number of texts in a forward pass.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        accelerator: Accelerator,
        pad_token_id: int | None = None,
        batch_size: int | None = None,
        pooling: str = "mean",
    ):
        super().__init__()
        self.backbone, self.pooling = text_encoder(backbone), pooling
        self.accelerator, self.pad_token_id, self.batch_size = accelerator, pad_token_id, batch_size

    def forward(self, rows: Rows) -> Tensor:
        """Return the features (n, hidden) float32 of rows of token ids."""
        batch = move(collate(rows, self.pad_token_id), self.backbone.device)
        if not accepts(self.backbone, "token_type_ids"):
            batch.pop("token_type_ids", None)
        with self.accelerator.autocast():
            output = self.backbone(**batch, **without_cache(self.backbone), return_dict=True)
        hidden, mask = output.last_hidden_state.float(), batch["attention_mask"][..., None]
        if self.pooling == "last":
            return hidden[torch.arange(len(rows)), mask.sum(1)[:, 0] - 1]
        # the states of padding may be anything, NaN included
        return hidden.masked_fill(mask == 0, 0.0).sum(1) / mask.sum(1)

    def parts(self, rows: Rows, chosen: Sequence[int]) -> list[list[int]]:
        """Split chosen rows by length into parts that fit into a forward pass."""
        batches = self._batcher().run(_lengths(rows), torch.tensor, members=chosen)
        return [part for part, _ in batches]

    @torch.no_grad()
    def embed(self, rows: Rows) -> Tensor:
        """Return the features (n, hidden) float32 of any number of rows, without gradients."""
        return run_batches(self._batcher(), _lengths(rows), lambda chosen: self([rows[i] for i in chosen]))

    def _batcher(self) -> Batcher:
        return Batcher.on(self.backbone.device, self.batch_size)


def _lengths(rows: Rows) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


class Head(nn.Module):
    """A linear layer after dropout, on features centered and scaled as those of the untrained backbone.

    Its weights start at zero, for even first predictions. With the scale, one learning rate fits all backbones.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, num_classes: int):
        super().__init__()
        mean = features.mean(0)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", (features - mean).square().mean().sqrt().clamp_min(1e-12))
        self.dropout, self.linear = nn.Dropout(DROPOUT), nn.Linear(features.shape[1], num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (n, classes) of features (n, hidden)."""
        return self.linear(self.dropout((features - self.mean) / self.scale))


def group_parameters(module: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """Return the trained parameters as groups for an optimizer, without weight decay on biases and norms."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices, vectors = [p for p in trained if p.dim() > 1], [p for p in trained if p.dim() <= 1]
    groups = (matrices, WEIGHT_DECAY), (vectors, 0.0)
    return [{"params": part, "lr": learning_rate, "weight_decay": decay} for part, decay in groups if part]


def draw_batches(count: int, seed: int) -> list[list[int]]:
    """Draw the indices of the examples of every step: ten epochs, or more of few examples."""
    generator, batches = torch.Generator().manual_seed(seed), list[list[int]]()
    steps = max(MIN_STEPS, EPOCHS * math.ceil(count / BATCH_SIZE))
    while len(batches) < steps:
        batches += [part.tolist() for part in torch.randperm(count, generator=generator).split(BATCH_SIZE)]
    return batches[:steps]


def optimize(groups: list[dict[str, Any]], losses: Losses, batches: list[list[int]], accelerator: Accelerator) -> None:
    """Minimize a loss by AdamW, with a step for each batch, linear warm-up and decay, and clipped gradients.

    Nothing is prepared with the accelerator: each process of a launch trains on its own.
    """
    optimizer = torch.optim.AdamW(groups)
    scheduler = get_scheduler("linear", optimizer, math.ceil(WARMUP * len(batches)), len(batches))
    parameters = [parameter for group in groups for parameter in group["params"]]
    for step, chosen in enumerate(batches, start=1):
        loss = 0.0
        for term in losses(chosen):
            accelerator.backward(term)
            loss += term.item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss} at step {step} of {len(batches)}: leave fine-tuning out for this backbone."
            )
        accelerator.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
