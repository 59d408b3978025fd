"""Prompts of labeled examples, as token ids: a template, the tokens of its parts, and what fits a context.

A prompt is put together from the tokens of its parts, so that the span of every example is known by counting, a query
is the same whatever stands before it, and a text that holds a label name or a line of the template changes nothing.
"""

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from transformers_tart.checks.bounds import MAX_INTEGER, MAX_TOKEN_ID, MAX_TOKENS, check_integer
from transformers_tart.checks.templates import PAIR_TEMPLATE, TEMPLATE, parse_template
from transformers_tart.embeddings.shared_prefix import Continuation
from transformers_tart.inputs.examples import Text
from transformers_tart.inputs.tokenization import TRUNCATION_SIDES, cut, encode, neutral_token, warn_if_truncated


logger = logging.get_logger(__name__)


def choose_template(template: str | None, texts: Sequence[Text]) -> str:
    """The template given, or the paper's, for texts or text pairs."""
    has_pairs = [not isinstance(text, str) for text in texts]
    if template is None:
        if any(has_pairs) and not all(has_pairs):
            raise ValueError(
                "Some examples are text pairs and some are not; give one kind, or a template of your own."
            )
        return PAIR_TEMPLATE if any(has_pairs) else TEMPLATE
    wants_pairs = len(parse_template(template).before) == 2
    if any(has != wants_pairs for has in has_pairs):
        raise ValueError(
            f"The template {template!r} {'holds' if wants_pairs else 'does not hold'} {{text_pair}}, and "
            f"{sum(has_pairs)} of {len(texts)} examples are text pairs."
        )
    return template


class Question(NamedTuple):
    """The token ids around the texts of a query: before each of them, and from the last to where the label stands.

    `neutral` stands for texts without a token where nothing else would be left of a query.
    """

    before: tuple[tuple[int, ...], ...]
    after: tuple[int, ...]
    neutral: int

    @property
    def length(self) -> int:
        """Tokens without those of the texts."""
        return sum(map(len, self.before)) + len(self.after)

    def ask(self, parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The token ids of a query whose text, or text and text pair, have these."""
        if len(parts) != len(self.before):
            wanted = "a text and its text_pair" if len(self.before) == 2 else "a single text"
            raise ValueError(f"The template asks for {wanted}, an input holds {len(parts)} texts.")
        asked = [token for before, part in zip(self.before, parts, strict=True) for token in (*before, *part)]
        return (*asked, *self.after) if self.after or any(parts) else (*asked, self.neutral)


@dataclass(frozen=True)
class Block:
    """A labeled example in a prompt: its token ids, and how many of them come before the label."""

    ids: tuple[int, ...]
    asked: int


@dataclass(frozen=True)
class Writer:
    """Writes examples as a template says, in the tokens of one tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    template: str

    @property
    def start(self) -> tuple[int, ...]:
        """What the tokenizer puts before every text."""
        bos = self.tokenizer.bos_token_id
        return (bos,) if bos is not None and encode(self.tokenizer, ["a"])["input_ids"][0][:1] == [bos] else ()

    @property
    def special(self) -> tuple[int, ...]:
        """What the tokenizer puts around a text, or two."""
        added = encode(self.tokenizer, [""])["input_ids"] + encode(self.tokenizer, [""], [""])["input_ids"]
        return tuple(sorted({token for ids in added for token in ids}))

    @property
    def question(self) -> Question:
        """What stands around the texts of a query."""
        template = parse_template(self.template)
        before = tuple(self._encode(literal) for literal in template.before)
        return Question(before, self._encode(template.question), neutral_token(self.tokenizer))

    @property
    def truncation_side(self) -> str:
        """Return the side on which long texts are cut."""
        return self.tokenizer.truncation_side

    def label(self, name: str) -> tuple[int, ...]:
        """The token ids of a label name, and of what closes an example."""
        template = parse_template(self.template)
        return self._encode(template.opening + name + template.closing)

    def parts(
        self, texts: Sequence[Text], max_length: int | None = None, max_characters: int | None = None
    ) -> list[list[list[int]]]:
        """The token ids of each text, or of each text and its pair, cut at the limits."""
        split = [[text] if isinstance(text, str) else list(text) for text in texts]
        flat = [part[:max_characters] for parts in split for part in parts]
        if not flat:
            return []
        encoded, side = encode(self.tokenizer, flat, add_special_tokens=False)["input_ids"], self.truncation_side
        warn_if_truncated(encoded, max_length)
        ids = iter(encoded)
        return [[list(cut(next(ids), max_length, side)) for _ in parts] for parts in split]

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(encode(self.tokenizer, [text], add_special_tokens=False)["input_ids"][0]) if text else ()


@dataclass(frozen=True)
class Prompt:
    r"""
    What a support set is to a backbone that reads it in one prompt.

    Args:
        ids (`tuple[int]`):
            Token ids of the prompt, to which queries are appended.
        question ([`Question`]):
            What stands around the texts of a query.
        special (`tuple[int]`):
            Ids of special tokens, which are taken off the ends of queries.
        room (`int`, *optional*):
            Most tokens of a query, what stands around it included; `None` without a limit.
        truncation_side (`str`, *optional*, defaults to `"right"`):
            On which side the texts of queries are cut.
    """

    ids: tuple[int, ...]
    question: Question
    special: tuple[int, ...] = ()
    room: int | None = None
    truncation_side: str = "right"

    def __post_init__(self) -> None:
        if self.truncation_side not in TRUNCATION_SIDES:
            raise ValueError(f"truncation_side is {self.truncation_side!r}; it must be one of {TRUNCATION_SIDES}.")

    def as_json(self) -> dict[str, Any]:
        """Lists and numbers, for a file."""
        names = ("ids", "question", "special", "room", "truncation_side")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Prompt":
        """What [`Prompt.as_json`] made, as it comes out of a file."""
        before, after, neutral = fields["question"]
        check_integer("the neutral token of the prompt", neutral, 0, MAX_TOKEN_ID)
        question = Question(tuple(_token_ids(piece) for piece in before), _token_ids(after), neutral)
        room = fields["room"]
        if room is not None:
            check_integer("the room of the prompt", room, 0, MAX_INTEGER)
        side = fields.get("truncation_side", "right")  # which files of version 0.1 do not name
        return cls(_token_ids(fields["ids"]), question, _token_ids(fields["special"]), room, side)

    @property
    def largest_id(self) -> int:
        """The largest token id."""
        return max(itertools.chain([self.question.neutral], self.ids, self.question.after, *self.question.before))

    def branch(self, parts: Sequence[Sequence[int]], max_length: int | None = None) -> Continuation:
        """A query as what follows the prompt and the beginning of all queries, `question.before[0]`.

        Each text is cut to its share of the room and to `max_length`, which is logged once.
        """
        limits = [max_length] if self.room is None else [max_length, (self.room - self.question.length) // len(parts)]
        limit = min((limit for limit in limits if limit is not None), default=None)
        warn_if_truncated(parts, limit)
        shown = [cut(part, limit, self.truncation_side) for part in parts]
        ids = self.question.ask(shown)[len(self.question.before[0]) :]
        return Continuation(ids, (0, len(ids)))

    def strip(self, ids: Sequence[int]) -> list[int]:
        """Token ids of a text without the special tokens around it."""
        kept = [i for i, token in enumerate(ids) if token not in self.special]
        return list(ids[kept[0] : kept[-1] + 1]) if kept else []


def _token_ids(values: Sequence[Any]) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_TOKENS:
        raise ValueError(f"the prompt has token ids that are no list of at most {MAX_TOKENS}")
    for value in values:
        check_integer("a token id of the prompt", value, 0, MAX_TOKEN_ID)
    return tuple(values)


def fit(lengths: Sequence[int], labels: Sequence[int], limit: int | None) -> list[int]:
    """Indices of the examples that a prompt of at most `limit` tokens holds: the newest, as balanced as they can be.

    Raises:
        ValueError: When there is no room for one example of each class.
    """
    members = {label: [i for i in reversed(range(len(labels))) if labels[i] == label] for label in set(labels)}
    sums = [list(accumulate((lengths[i] for i in own), initial=0)) for own in members.values()]
    most = max(map(len, members.values()))
    # how many of each class fit: the lengths only grow with it
    count = (
        most
        if limit is None
        else bisect_right(
            range(1, most + 1), limit, key=lambda n: sum(totals[min(n, len(totals) - 1)] for totals in sums)
        )
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
            f"{limit} tokens. {len(labels) - len(kept)} were dropped; a smaller max_length leaves room."
        )
    return kept


__all__ = ["Block", "Prompt", "Question", "Writer", "choose_template", "fit"]
