"""The `gpt2` architecture: the reasoning head of the TART paper (arXiv 2306.07536, section 3.2).

A GPT-2 reads x_1, y_1, x_2, y_2, ..., x_query; the read-out at an x is the log-odds of its label being 1.
"""

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2Model

from transformers_tart.checks.tracing import is_traced
from transformers_tart.configuration_tart import TartReasonerConfig
from transformers_tart.reasoners.architectures.base import Architecture
from transformers_tart.reasoners.kv_cache import PrefixCache, cache_argument


QUERY_BLOCK = 256


class GPT2Architecture(Architecture):
    """A binary, order-dependent reasoner of `num_components` dimensions and up to `n_positions - 1` examples."""

    max_classes = 2

    def __init__(self, config: TartReasonerConfig):
        super().__init__()
        self.input_dim = config.num_components
        self.max_support = config.n_positions - 1  # the query takes the last position
        self.read_in = nn.Linear(config.num_components, config.hidden_size)
        self.backbone = GPT2Model(
            GPT2Config(
                vocab_size=1,  # inputs are embeddings
                bos_token_id=None,
                eos_token_id=None,
                n_positions=2 * config.n_positions,
                n_embd=config.hidden_size,
                n_layer=config.num_hidden_layers or 0,
                n_head=config.num_attention_heads,
                n_inner=config.intermediate_size,
                activation_function="gelu_pytorch_tanh",  # GPT-2's own, as one operation
                layer_norm_epsilon=config.layer_norm_eps,
                initializer_range=config.initializer_range,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
        self.backbone.wte.requires_grad_(False)  # unused, so it gets no gradient
        self.read_out = nn.Linear(config.hidden_size, 1)

    def init_weights(self) -> None:
        """Initialize read-in and read-out as `nn.Linear` does, like the published code."""
        self.read_in.reset_parameters()
        self.read_out.reset_parameters()

    def sequence_logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return log-odds (B, n) of the binary labels (B, n) of sequences of embeddings (B, n, num_components).

        Those of each label depend on the examples before it and its own embedding.
        """
        tokens = self._interleave(embeddings, labels)
        hidden = self.backbone(inputs_embeds=self.read_in(tokens), use_cache=False).last_hidden_state
        return self.read_out(hidden[:, ::2]).squeeze(-1).float()

    def prepare(self, embeddings: Tensor, labels: Tensor, num_classes: int) -> PrefixCache:
        """Encode support embeddings (B, k, num_components) with labels (B, k), 0 or 1."""
        if embeddings.shape[-1] != self.input_dim:
            raise ValueError(
                f"The gpt2 reasoner reads {self.input_dim} dimensions, the embeddings have {embeddings.shape[-1]}: "
                'set projection="whitened_pca" in its config.'
            )
        cache = DynamicCache(config=self.backbone.config)
        tokens = self.read_in(self._interleave(embeddings, labels))
        self.backbone(inputs_embeds=tokens, use_cache=True, **{cache_argument(self.backbone): cache})
        return PrefixCache.from_cache(cache)

    def query(self, state: PrefixCache, embeddings: Tensor) -> Tensor:
        """Return logits (B, n, 2) of query embeddings (B, n, num_components); that of the first class is 0."""
        blocks = [embeddings] if is_traced() else embeddings.split(QUERY_BLOCK, dim=1)
        log_odds = torch.cat([self._query_block(state, block) for block in blocks], dim=1)
        return torch.stack([torch.zeros_like(log_odds), log_odds], dim=-1)

    def _query_block(self, state: PrefixCache, embeddings: Tensor) -> Tensor:
        """Return log-odds (B, n) of queries, each at the position after the prefix, attending to it and itself."""
        batch, size, _ = embeddings.shape
        inputs = self.read_in(embeddings.to(self.read_in.weight.dtype))
        visible = torch.cat(
            [torch.ones(size, state.length, dtype=torch.bool), torch.eye(size, dtype=torch.bool)], dim=1
        ).to(inputs.device)
        mask = torch.zeros(visible.shape, dtype=inputs.dtype, device=inputs.device)
        mask = mask.masked_fill(~visible, torch.finfo(inputs.dtype).min).expand(batch, 1, -1, -1)
        hidden = self.backbone(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=torch.full((batch, size), state.length, device=inputs.device),
            use_cache=True,
            **{cache_argument(self.backbone): state.cache()},
        ).last_hidden_state
        return self.read_out(hidden).squeeze(-1).float()

    def _interleave(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return tokens x_1, y_1, x_2, ... (B, 2 * n, num_components), with labels in their first coordinate."""
        wide = torch.zeros_like(embeddings)
        wide[..., 0] = labels.to(embeddings.dtype)
        return torch.stack([embeddings, wide], dim=2).flatten(1, 2).to(self.read_in.weight.dtype)
