"""Phrases: templates of views as token ids, and the forward passes in which they are read.

A phrase is put together from the tokens of its parts, so that nothing in a text touches the template, and a long text
is cut while the template stays whole. Views whose phrases begin alike are spans of the longest of them; phrases that
differ after their last text are read as endings of one stem.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from transformers_tart.checks.bounds import MAX_INTEGER, MAX_TOKEN_ID, check_integer
from transformers_tart.checks.templates import parse_view_template
from transformers_tart.embeddings.prompts import Continuation, Prefix, Writer, as_token_ids, truncate_parts
from transformers_tart.inputs.tokenization import TRUNCATION_SIDES, encode, neutral_token
from transformers_tart.inputs.views import View


Ids = tuple[int, ...]


class Phrase(NamedTuple):
    """A template in token ids, with the special tokens around it."""

    literals: tuple[Ids, ...]  # before each text, and after the last
    fields: Ids  # 0 for each place of the text, 1 for each of its pair
    end: Ids = ()  # special tokens after the template

    @property
    def length(self) -> int:
        """The number of tokens without those of the texts."""
        return sum(map(len, self.literals)) + len(self.end)

    def fill(self, parts: Sequence[Sequence[int]]) -> Ids:
        """Return the token ids of the template around the texts."""
        pieces = [(*before, *parts[field]) for before, field in zip(self.literals, self.fields, strict=False)]
        return tuple(token for piece in (*pieces, self.literals[-1], self.end) for token in piece)

    def span(self, parts: Sequence[Sequence[int]], pooling: str) -> tuple[int, int]:
        """Return the span of the last token of the template, or that of the last copy of the texts."""
        at = begin = end = 0
        for before, field in zip(self.literals, self.fields, strict=False):
            begin = at + len(before) if field == 0 else begin
            end = at = at + len(before) + len(parts[field])
        last = at + len(self.literals[-1])
        return (last - 1, last) if pooling == "last" else (begin, end)

    def begins(self, other: "Phrase") -> bool:
        """Return whether another phrase holds the same tokens and texts at its beginning."""
        count = len(self.fields)
        last, longer = self.literals[-1], (*other.literals, ())[min(count, len(other.literals))]
        return (
            not self.end
            and self.fields == other.fields[:count]
            and self.literals[:-1] == other.literals[:count]
            and longer[: len(last)] == last
        )


@dataclass(frozen=True)
class Passage:
    """A forward pass over each input, and the views that it gives."""

    views: tuple[int, ...]  # their numbers
    phrases: tuple[Phrase, ...]  # one for each

    @cached_property
    def read(self) -> tuple[Phrase, ...]:
        """The phrases that are read, of which the others are beginnings: one, or several that differ in their ends."""
        unique = tuple(dict.fromkeys(self.phrases))
        return tuple(each for each in unique if not any(each != other and each.begins(other) for other in unique))

    @cached_property
    def phrase(self) -> Phrase:
        """The longest phrase that is read."""
        return max(self.read, key=lambda each: each.length)

    @property
    def num_shared(self) -> int:
        """The number of tokens behind the last text that all phrases share."""
        return len(os.path.commonprefix([each.literals[-1] for each in self.read]))

    @property
    def owners(self) -> Ids:
        """For each phrase the number of that among those read of which it is a beginning."""
        return tuple(
            next(i for i, other in enumerate(self.read) if each == other or each.begins(other))
            for each in self.phrases
        )

    def straight(self) -> "list[Passage]":
        """Return a passage for each phrase that is read."""
        owners, found = self.owners, []
        for number in range(len(self.read)):
            own = [i for i, owner in enumerate(owners) if owner == number]
            found.append(Passage(tuple(self.views[i] for i in own), tuple(self.phrases[i] for i in own)))
        return found

    @property
    def is_whole(self) -> bool:
        """`True` where each view has a phrase with a text, and all that are read are alike up to their last text."""
        return 0 < len(self.views) == len(self.phrases) and (
            all(
                len(each.literals) == len(each.fields) + 1 and 0 in each.fields and set(each.fields) <= {0, 1}
                for each in self.phrases
            )
            and len({(each.fields, each.literals[:-1]) for each in self.read}) == 1
            and not (len(self.read) > 1 and any(each.end for each in self.phrases))
        )

    def continuation(self, parts: Sequence[Sequence[int]], poolings: Sequence[str]) -> Continuation:
        """Return texts, by token ids, as the continuation of what all inputs share, with a span for each view."""
        read = self.read
        start, ids = len(read[0].literals[0]), read[0].fill(parts)
        if len(read) == 1:
            spans = [each.span(parts, pooling) for each, pooling in zip(self.phrases, poolings, strict=True)]
            return Continuation(ids[start:], tuple((begin - start, end - start) for begin, end in spans))
        shared = self.num_shared
        stem = len(ids) - len(read[0].literals[-1]) + shared
        endings = [each.literals[-1][shared:] for each in read]
        forks = [stem - start + sum(map(len, endings[:i])) for i in range(len(endings))]
        spans = []
        for each, pooling, owner in zip(self.phrases, poolings, self.owners, strict=True):
            begin, end = (bound - start for bound in each.span(parts, pooling))
            moved = forks[owner] - forks[0] if end > stem - start else 0
            spans.append((begin + moved, end + moved))
        whole = ids[start:stem] + tuple(token for ending in endings for token in ending)
        return Continuation(whole, tuple(spans), tuple(forks))


@dataclass(frozen=True)
class Phrasing:
    """The passages of a model, in the token ids of one tokenizer."""

    passages: tuple[Passage, ...]
    special: Ids = ()  # which are taken off the ends of texts
    separator: Ids = ()  # between the texts of a pair, in a template of single texts
    neutral: int = 0  # the id that stands for an empty text
    context: int | None = None  # most tokens of a phrase and its texts; `None` without a limit
    truncation_side: str = "right"

    def __post_init__(self) -> None:
        if self.truncation_side not in TRUNCATION_SIDES:
            raise ValueError(f"truncation_side is {self.truncation_side!r}; it must be one of {TRUNCATION_SIDES}.")
        if not self.passages or not all(passage.is_whole for passage in self.passages):
            raise ValueError("the templates of its views are incomplete")
        least = max(passage.phrase.length + len(passage.phrase.fields) for passage in self.passages)
        if self.context is not None and self.context < least:
            raise ValueError(f"the context of its templates is {self.context}, and they need {least} tokens at least")

    @classmethod
    def of(
        cls, views: Sequence[View], tokenizer: PreTrainedTokenizerBase, is_causal: bool, context: int | None
    ) -> "Phrasing":
        """Write the templates of views in tokens; views whose phrases begin alike share a passage.

        Raises:
            ValueError: When a template leaves no room for a text.
        """
        writer, passages = Writer(tokenizer, ""), list[Passage]()
        around = (writer.start, ()) if is_causal else writer.around
        for number, view in enumerate(views):
            if view.template is None:
                continue
            phrase = _write(view.template, tokenizer, *around)
            if context is not None and phrase.length + len(phrase.fields) > context:
                raise ValueError(
                    f"The template of the view {view.name!r} takes {phrase.length} tokens without any text, and the "
                    f"backbone reads {context}: give a shorter template."
                )
            for i, passage in enumerate(passages):
                joint = Passage((*passage.views, number), (*passage.phrases, phrase))
                if phrase == passage.phrase or (is_causal and joint.is_whole):
                    passages[i] = joint
                    break
            else:
                passages.append(Passage((number,), (phrase,)))
        separator = tuple(encode(tokenizer, ["\n"], add_special_tokens=False)["input_ids"][0])
        neutral, side = neutral_token(tokenizer), tokenizer.truncation_side
        return cls(tuple(passages), writer.special, separator, neutral, context, side)

    def continuation(
        self, passage: Passage, views: Sequence[View], parts: Sequence[Sequence[int]], max_length: int | None
    ) -> Continuation:
        """Return an input, truncated, as the continuation of the beginning of a passage, with a span for each view."""
        phrase = passage.phrase
        parts = truncate_parts(self._texts(phrase, parts), self.room(phrase, max_length), self.truncation_side)
        if not any(parts):
            parts[0] = [self.neutral]
        return passage.continuation(parts, [views[i].pooling for i in passage.views])

    def sizes(self, parts: Sequence[Sequence[int]], max_length: int | None) -> list[tuple[int, int | None]]:
        """Return the number of tokens of each text in each passage, and the number that is read, `None` for all."""
        phrases = [passage.phrase for passage in self.passages]
        return [(len(part), self.room(each, max_length)) for each in phrases for part in self._texts(each, parts)]

    def _texts(self, phrase: Phrase, parts: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Return the texts of an input as a phrase asks for them: a pair as one, in a template of single texts."""
        if 1 not in phrase.fields:
            given = [part for part in parts if part]
            return [[token for i, part in enumerate(given) for token in ((*self.separator, *part) if i else part)]]
        if len(parts) == 1:
            raise ValueError(
                "The template asks for a text and its text_pair, an input holds a single text; give both, and the "
                "model token_type_ids that distinguish them."
            )
        return parts

    def room(self, phrase: Phrase, max_length: int | None) -> int | None:
        """Return the most tokens of each text that fit into a phrase."""
        if self.context is None:
            return max_length
        share = (self.context - phrase.length) // len(phrase.fields)
        return share if max_length is None else min(max_length, share)

    @property
    def largest_id(self) -> int:
        """The largest token id."""
        ids = [self.neutral, *self.separator]
        for passage in self.passages:
            ids += [token for each in passage.read for literal in (*each.literals, each.end) for token in literal]
        return max(ids)

    def as_json(self) -> dict[str, Any]:
        """Return lists and numbers, for a file."""
        return {**vars(self), "passages": [(each.views, each.phrases) for each in self.passages]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Phrasing":
        """Return a phrasing from the lists and numbers of a file."""
        check_integer("the neutral token of the templates", fields["neutral"], 0, MAX_TOKEN_ID)
        if fields["context"] is not None:
            check_integer("the context of the templates", fields["context"], 0, MAX_INTEGER)
        passages = tuple(_passage_from_json(*each) for each in fields["passages"])
        ids = {name: as_token_ids(fields[name]) for name in ("special", "separator")}
        return cls(**{**fields, "passages": passages, **ids})


def _write(template: str, tokenizer: PreTrainedTokenizerBase, start: Ids, end: Ids) -> Phrase:
    literals, fields = parse_view_template(template)
    written = [tuple(encode(tokenizer, [x], add_special_tokens=False)["input_ids"][0]) if x else () for x in literals]
    written[0] = (*start, *written[0])
    return Phrase(tuple(written), tuple(int(field == "text_pair") for field in fields), end)


def _passage_from_json(views: Any, phrases: Any) -> Passage:
    read = [
        Phrase(tuple(as_token_ids(ids) for ids in literals), as_token_ids(fields), as_token_ids(end))
        for literals, fields, end in phrases
    ]
    return Passage(as_token_ids(views), tuple(read))


@dataclass(frozen=True)
class Reading:
    """The way in which queries of a support set are read: after a prompt, or in passages, each encoded once."""

    prefixes: tuple[Prefix, ...]  # of the prompt, or of each passage
    phrasing: Phrasing | None = None

    @property
    def runtime(self) -> tuple[object, ...]:
        """[`BackboneTraits.runtime`] with which it was encoded."""
        return self.prefixes[0].runtime
