"""Prompts of labeled examples, as token ids: a template, the tokens of its parts, and the examples that fit a context.

A prompt is put together from the tokens of its parts, so that the span of every example is known by counting, a query
is the same whatever stands before it, and a text that holds a label name or a line of the template changes nothing.
"""

import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.checks.bounds import MAX_INTEGER, MAX_TOKEN_ID, MAX_TOKENS, check_integer
from transformers_tart.checks.templates import PAIR_TEMPLATE, TEMPLATE, parse_template
from transformers_tart.inputs.texts import Text
from transformers_tart.inputs.tokenization import (
    TRUNCATION_SIDES,
    cut,
    encode,
    neutral_token,
    tokenize_parts,
    warn_if_truncated,
)
from transformers_tart.reasoners.kv_cache import PrefixCache


logger = logging.get_logger(__name__)


def choose_template(template: str | None, texts: Sequence[Text]) -> str:
    """Return the given template, or the paper's for texts or text pairs; check that it suits the texts."""
    num_pairs = sum(not isinstance(text, str) for text in texts)
    if template is None:
        if 0 < num_pairs < len(texts):
            raise ValueError(
                "Some examples are text pairs and some are not; give one kind, or a template of your own."
            )
        return PAIR_TEMPLATE if num_pairs else TEMPLATE
    is_of_pairs = len(parse_template(template).before) == 2
    if num_pairs != (len(texts) if is_of_pairs else 0):
        raise ValueError(
            f"The template {template!r} {'holds' if is_of_pairs else 'does not hold'} {{text_pair}}, and "
            f"{num_pairs} of {len(texts)} examples are text pairs."
        )
    return template


class Question(NamedTuple):
    """The token ids of a query around its texts."""

    before: tuple[tuple[int, ...], ...]  # each text
    after: tuple[int, ...]  # the last text, up to the place of the label
    neutral: int  # the id that stands for a query of which nothing else is left

    @property
    def length(self) -> int:
        """The number of tokens without those of the texts."""
        return sum(map(len, self.before)) + len(self.after)

    def ask(self, parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Return the token ids of a query from those of its text, or text and text pair."""
        if len(parts) != len(self.before):
            expected = "a text and its text_pair" if len(self.before) == 2 else "a single text"
            raise ValueError(f"The template asks for {expected}, an input holds {len(parts)} texts.")
        asked = [token for before, part in zip(self.before, parts, strict=True) for token in (*before, *part)]
        return (*asked, *self.after) if self.after or any(parts) else (*asked, self.neutral)


class Block(NamedTuple):
    """The token ids of a labeled example in a prompt."""

    ids: tuple[int, ...]
    asked: int  # number of them before the label


@dataclass(frozen=True)
class Continuation:
    """Token ids that continue a prefix, and the span (begin, end) of them that each view, or every one, embeds.

    Where the ids fork, several endings follow one stem. Each ending continues the stem, and not the endings before it.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    forks: tuple[int, ...] = ()  # place of the first token of each ending

    def spans_from(self, start: int) -> tuple[tuple[int, int], ...]:
        """Return the spans in a row in which the ids begin at `start`."""
        return tuple((start + begin, start + end) for begin, end in self.spans)

    def ending_of(self, span: tuple[int, int]) -> int:
        """Return the number of the ending in which a span is, 0 for one in the stem."""
        return max(0, bisect_right(self.forks, span[0]) - 1)

    def straight(self) -> "list[Continuation]":
        """Return the stem with each ending; spans of other endings are those of the first token."""
        if not self.forks:
            return [self]
        stem, found = self.forks[0], []
        for number, (first, last) in enumerate(zip(self.forks, (*self.forks[1:], len(self.ids)), strict=True)):
            spans = [
                (0, 1)
                if self.ending_of(span) != number
                else span
                if span[1] <= stem
                else (span[0] - first + stem, span[1] - first + stem)
                for span in self.spans
            ]
            found.append(Continuation(self.ids[:stem] + self.ids[first:last], tuple(spans)))
        return found


@dataclass(frozen=True)
class Writer:
    """Writer of examples in the tokens of one tokenizer, by a template."""

    tokenizer: PreTrainedTokenizerBase
    template: str

    @property
    def start(self) -> tuple[int, ...]:
        """The token ids that the tokenizer puts before every text."""
        bos = self.tokenizer.bos_token_id
        return (bos,) if bos is not None and encode(self.tokenizer, ["a"])["input_ids"][0][:1] == [bos] else ()

    @property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before and after every text."""
        whole = encode(self.tokenizer, ["a"])["input_ids"][0]
        bare = encode(self.tokenizer, ["a"], add_special_tokens=False)["input_ids"][0]
        starts = (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
        at = next(starts, None)
        return ((), ()) if at is None else (tuple(whole[:at]), tuple(whole[at + len(bare) :]))

    @property
    def special(self) -> tuple[int, ...]:
        """The token ids that the tokenizer puts around a text, or around two."""
        added = encode(self.tokenizer, [""])["input_ids"] + encode(self.tokenizer, [""], [""])["input_ids"]
        return tuple(sorted({token for ids in added for token in ids}))

    @property
    def question(self) -> Question:
        """The token ids around the texts of a query."""
        template = parse_template(self.template)
        before = tuple(self._encode(literal) for literal in template.before)
        return Question(before, self._encode(template.question), neutral_token(self.tokenizer))

    def label(self, name: str) -> tuple[int, ...]:
        """Return the token ids of a label name and of the end of an example."""
        template = parse_template(self.template)
        return self._encode(template.opening + name + template.closing)

    def parts(self, texts: Sequence[Text], max_length: int | None = None) -> list[list[list[int]]]:
        """Return the token ids of each text, or of each text and its pair, truncated to `max_length`."""
        encoded = zip(tokenize_parts(self.tokenizer, texts), texts, strict=True)
        rows = [split_parts(row, 1 if isinstance(text, str) else 2) for row, text in encoded]
        return [truncate_parts(parts, max_length, self.tokenizer.truncation_side) for parts in rows]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(encode(self.tokenizer, [text], add_special_tokens=False)["input_ids"][0]) if text else ()


def truncate_parts(parts: Sequence[Sequence[int]], limit: int | None, side: str) -> list[list[int]]:
    """Truncate the token ids of each text, which is logged once."""
    warn_if_truncated(parts, limit)
    return [list(cut(part, limit, side)) for part in parts]


def split_parts(row: Mapping[str, list[int]], num_parts: int) -> list[list[int]]:
    """Return the token ids of a text, or of a text and its pair, which token types distinguish."""
    if num_parts == 1:
        return [row["input_ids"]]
    segments = list(zip(row["input_ids"], row["token_type_ids"], strict=True))
    return [[token for token, segment in segments if segment == part] for part in range(num_parts)]


@dataclass(frozen=True)
class Prompt:
    """A support set as a prompt."""

    ids: tuple[int, ...]  # to which queries are appended
    question: Question
    special: tuple[int, ...] = ()  # ids of special tokens, which are taken off the ends of queries
    max_query_tokens: int | None = None  # those of `question` included; `None` without a limit
    truncation_side: str = "right"  # of the texts of queries

    def __post_init__(self) -> None:
        if self.truncation_side not in TRUNCATION_SIDES:
            raise ValueError(f"truncation_side is {self.truncation_side!r}; it must be one of {TRUNCATION_SIDES}.")

    def as_json(self) -> dict[str, Any]:
        """Return lists and numbers, for a file."""
        fields = {name: getattr(self, name) for name in ("ids", "question", "special", "truncation_side")}
        return {**fields, "room": self.max_query_tokens}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Prompt":
        """Return a prompt from the lists and numbers of a file."""
        before, after, neutral = fields["question"]
        check_integer("the neutral token of the prompt", neutral, 0, MAX_TOKEN_ID)
        question = Question(tuple(as_token_ids(piece) for piece in before), as_token_ids(after), neutral)
        if fields["room"] is not None:
            check_integer("the room of the prompt", fields["room"], 0, MAX_INTEGER)
        side = fields.get("truncation_side", "right")  # which files of version 0.1 do not name
        return cls(as_token_ids(fields["ids"]), question, as_token_ids(fields["special"]), fields["room"], side)

    @property
    def largest_id(self) -> int:
        """The largest token id."""
        return max(itertools.chain([self.question.neutral], self.ids, self.question.after, *self.question.before))

    def continuation(self, parts: Sequence[Sequence[int]], max_length: int | None = None) -> Continuation:
        """Return a query, truncated, as the continuation of the prompt and of the beginning of all queries."""
        limit = max_length
        if self.max_query_tokens is not None:
            share = (self.max_query_tokens - self.question.length) // len(parts)
            limit = share if limit is None else min(limit, share)
        ids = self.question.ask(truncate_parts(parts, limit, self.truncation_side))[len(self.question.before[0]) :]
        return Continuation(ids, ((0, len(ids)),))


def strip(ids: Sequence[int], special: Sequence[int]) -> list[int]:
    """Return the token ids of a text without the special tokens around it."""
    kept = [i for i, token in enumerate(ids) if token not in special]
    return list(ids[kept[0] : kept[-1] + 1]) if kept else []


def as_token_ids(values: Sequence[Any]) -> tuple[int, ...]:
    """Return the token ids of a file; raise a ValueError on anything else."""
    if not isinstance(values, list) or len(values) > MAX_TOKENS:
        raise ValueError(f"the prompt has token ids that are no list of at most {MAX_TOKENS}")
    for value in values:
        check_integer("a token id of the prompt", value, 0, MAX_TOKEN_ID)
    return tuple(values)


def fit(lengths: Sequence[int], labels: Sequence[int], limit: int | None) -> list[int]:
    """Return the indices of the newest examples that fit into `limit` tokens, as balanced as they can be."""
    members = {label: [i for i in reversed(range(len(labels))) if labels[i] == label] for label in set(labels)}
    sums = [list(accumulate((lengths[i] for i in own), initial=0)) for own in members.values()]
    count = most = max(map(len, members.values()))
    if limit is not None:  # the length grows with the number of examples of each class
        count = bisect_right(
            range(1, most + 1), limit, key=lambda n: sum(totals[min(n, len(totals) - 1)] for totals in sums)
        )
    if count == 0:
        raise ValueError(
            f"The backbone's context leaves {limit} tokens for the examples, which do not hold one of each of the "
            f'{len(members)} classes; shorten them with max_length, or use protocol="stream".'
        )
    kept = sorted(i for own in members.values() for i in own[:count])
    if len(kept) < len(labels):
        logger.warning(
            f"The prompt holds {len(kept)} of the {len(labels)} examples: the newest of each class that fit into "
            f"{limit} tokens. {len(labels) - len(kept)} were dropped; with a smaller max_length more fit."
        )
    return kept


@dataclass(frozen=True)
class Prefix:
    """The beginning of prompts, encoded once."""

    ids: tuple[int, ...] = ()
    cache: PrefixCache | None = None
    strategy: str = "packed"
    most_rows: int | None = None  # of a packed batch; `None` for as many as there is room for
    query_prefix: Tensor | None = None  # (layers, hidden) of its last tokens, which are part of every continuation
    query_prefix_length: int = 0
    runtime: tuple[object, ...] = ()  # [`BackboneTraits.runtime`] with which it was encoded
    prompt: Prompt | None = None  # whose queries continue it

    @property
    def length(self) -> int:
        """The number of tokens."""
        return len(self.ids)
