"""`bench`: both sides do the same work in turn, times are counted and scaled rightly, and nothing else is claimed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.benchmarks import TINY, FakeClock, _tiny_model, compare, constant  # noqa: F401 - the fixture is used by name

from transformers_tart import TartForSequenceClassification
from transformers_tart.bench.pairs import PAIRS, SampledProcedure, whiten
from transformers_tart.bench.timing import TOLERANCE, Meter, Times, check, format_row, measure, pair_result
from transformers_tart.bench.workload import draw_embeddings, draw_texts, load_language_model
from transformers_tart.embeddings.reference import LABEL_WORDS, PublishedProcedure
from transformers_tart.projection import WhitenedPCA


WHOLE = ("views", "views-best")  # pairs of which both sides embed every text
OTHER_RESULTS = ("kernel-reasoner", "vanilla", "loo", *WHOLE)


def test__measure__any_pair__sides_in_turn_and_first_runs_not_counted() -> None:
    clock, calls = FakeClock(), list[str]()

    def side(name: str, durations: list[float]) -> Callable[..., torch.Tensor]:
        left = iter(durations)

        def run(*_: Meter) -> torch.Tensor:
            calls.append(name)
            clock.time += next(left)
            return torch.zeros(1)

        return run

    comparison = compare(side("naive", [100, 8, 2, 5]), side("ours", [100, 1, 4, 2]))
    times = measure(comparison, 3, clock, progress=lambda: calls.append("|"))
    assert calls == ["naive", "|", "ours", "|"] * 4
    assert times == Times([8, 2, 5], [8, 2, 5], [1, 4, 2], 0.0)


def test__measure__part_of_the_work__time_scaled_to_all_of_it() -> None:
    clock = FakeClock()

    def naive(meter: Meter) -> torch.Tensor:
        clock.time += 3  # paid once, whatever is left out
        with meter.sample(2, 10):
            clock.time += 4
        with meter.sample(5, 5):
            clock.time += 1
        return torch.zeros(1)

    times = measure(compare(naive, lambda: torch.zeros(1)), 1, clock)
    assert times.naive == [8]
    assert times.scaled == [3 + 4 * 10 / 2 + 1]


def test__result__median_and_ratio__of_the_scaled_times() -> None:
    comparison = compare(constant(0), constant(0), passes=(20, 1000))
    times = Times([1, 2, 3], [50, 100, 600], [2, 4, 5], 3e-7)
    result = pair_result(PAIRS["gpt2-reasoner"], TINY, comparison, times)
    assert result["ratio"] == 100 / 4
    cells = [cell.strip() for cell in format_row(result).strip("|").split("|")]
    assert cells[0] == "gpt2-reasoner"
    assert cells[6:] == ["100 (50..600)", "4 (2..5)", "25", "20 of 1000", "3.0e-07"]


@pytest.mark.parametrize(
    ("naive", "ours", "message"),
    [
        (constant(0.5), constant(0.51), "differ by 0.01"),
        (constant(0.5), constant(float("nan")), "differ by nan"),
        (constant(0.5), lambda: torch.zeros(1, 3), "shape"),
        (constant(0.5, rows=2), constant(0.5), "same work"),
        (constant(0.5), constant(0.5, rows=2), "same work"),
    ],
)
def test__measure__sides_disagree__error(naive: Callable, ours: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(compare(naive, ours), 1)


def test__check__other_models__only_the_number_of_rows_counts() -> None:
    comparison = compare(constant(0), constant(1), agrees=False)
    assert check(comparison, torch.zeros(1), torch.ones(1, 4)) is None
    with pytest.raises(ValueError, match="same work"):
        check(comparison, torch.zeros(1), torch.ones(2))


def test__check__some_rows__compared_with_those_of_ours() -> None:
    comparison = compare(constant(0), constant(0), rows=[1, 3], size=4)
    ours = torch.arange(4.0)[:, None]
    assert check(comparison, ours[[1, 3]], ours) == 0.0
    with pytest.raises(ValueError, match="differ"):
        check(comparison, ours[[1, 2]], ours)


@pytest.mark.parametrize(
    ("asked", "total", "chosen"), [(2, 8, [2, 6]), (0, 3, [0, 1, 2]), (9, 3, [0, 1, 2]), (3, 9, [1, 4, 7])]
)
def test__sample__any_number__evenly_spread(asked: int, total: int, chosen: list[int]) -> None:
    assert replace(TINY, naive_queries=asked).sample(total) == chosen


def test__sample_by_length__mixed_texts__as_long_as_all_on_average() -> None:
    texts = draw_texts(500, 0, 1, 120)
    chosen = replace(TINY, naive_queries=20).sample_by_length(texts)
    lengths = torch.tensor([len(text) for text in texts]).float()
    assert len(set(chosen)) == 20
    assert abs(lengths[chosen].mean() / lengths.mean() - 1) < 0.05


@pytest.mark.parametrize("words", [(0, 3), (4, 3)])
def test__workload__words_that_make_no_text__error(words: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="fewest and the most words"):
        replace(TINY, words=words)


@pytest.mark.parametrize("field", ["k", "queries", "naive_queries", "max_characters"])
def test__workload__number_out_of_range__error(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        replace(TINY, **{field: -1})


def test__texts__same_seed__same_texts_of_the_lengths_asked_without_label_words() -> None:
    texts = draw_texts(300, 3, 2, 40)
    assert texts == draw_texts(300, 3, 2, 40) != draw_texts(300, 4, 2, 40)
    assert {len(text.split()) for text in texts} == set(range(2, 41))
    assert not any(word in " ".join(texts).lower() for word in LABEL_WORDS)


def test__whiten__published__as_our_projection() -> None:
    support, _, queries = draw_embeddings(replace(TINY, k=40), 64)
    known, new = whiten(support, queries, 16)
    ours = WhitenedPCA(16).fit(support)
    torch.testing.assert_close(known, ours.transform(support), atol=1e-4, rtol=0)
    torch.testing.assert_close(new, ours.transform(queries), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test__pair__tiny__same_work_and_agreement_where_it_is_asked(name: str) -> None:
    comparison = PAIRS[name].build(TINY)
    times = measure(comparison, 1)
    assert comparison.agrees == (name not in OTHER_RESULTS)
    assert (times.difference is not None) == comparison.agrees
    assert (times.difference or 0.0) <= TOLERANCE[torch.float32]
    computed, total = comparison.computed
    assert computed > 0
    assert computed == total if name in WHOLE else computed < total
    assert min(times.naive + times.scaled + times.ours) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PAIRS if name not in OTHER_RESULTS])
def test__pair__one_row_of_ours_wrong__error(name: str) -> None:
    comparison = PAIRS[name].build(TINY)

    def wrong() -> torch.Tensor:
        result = comparison.ours().clone()
        result[comparison.rows[-1]] += 0.01
        return result

    with pytest.raises(ValueError, match="do not compute the same"):
        measure(replace(comparison, ours=wrong), 1)


@pytest.mark.parametrize(("name", "preset"), [("views", "default"), ("views-best", "best")])
def test__views__each_side__the_embeddings_of_its_views(name: str, preset: str) -> None:
    comparison, model = PAIRS[name].build(replace(TINY, words=(2, 9))), load_language_model(TINY)
    texts = draw_texts(TINY.queries, TINY.seed, 2, 9)
    for found, asked in ((comparison.naive(Meter()), preset), (comparison.ours(), "plain")):
        composed = TartForSequenceClassification.from_backbone(model.backbone, views=asked)
        examples = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
        expected = composed.encode_support(examples, model.tokenizer).embeddings
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)  # a support set is stored in float16


@pytest.mark.parametrize("protocol", ["stream", "vanilla", "loo"])
def test__sampled_procedure__some_passes__as_the_whole_procedure_in_those(protocol: str) -> None:
    model, texts, labels = load_language_model(TINY), draw_texts(9, 0, 3, 12), [0, 1, 0, 1, 1]
    clock, model_and = FakeClock(), (model.with_head, model.tokenizer, 7, 100)
    whole = torch.cat(PublishedProcedure(*model_and).embed(protocol, texts[:5], labels, texts[5:])[:2])
    passes = 1 if protocol == "vanilla" else 5
    sampled = SampledProcedure([(passes, [0]), (4, [1, 3])], Meter(clock), *model_and)
    rows = torch.cat(sampled.embed(protocol, texts[:5], labels, texts[5:])[:2])
    made = [*(range(5) if protocol == "vanilla" else [0]), 6, 8]
    torch.testing.assert_close(rows[made], whole[made])
    assert not rows[[row for row in range(9) if row not in made]].any()


@pytest.mark.parametrize("k", [16, 258])
def test__gpt2_reasoner__support_set_that_the_head_cannot_read__error(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}"):
        PAIRS["gpt2-reasoner"].build(replace(TINY, k=k))


def test__protocol__prompt_too_long__error_names_the_tokens() -> None:
    with pytest.raises(ValueError, match="of 200 examples has .* and 2048 are read"):
        PAIRS["loo"].build(replace(TINY, k=200))


def test__load_language_model__mini__room_for_the_published_prompts() -> None:
    model = load_language_model(replace(TINY, backbone="mini"))
    assert model.with_head.config.max_position_embeddings == model.tokenizer.model_max_length == 2048
    assert model.backbone is model.with_head.base_model


def test__load_language_model__unknown_random__error_names_the_known() -> None:
    with pytest.raises(ValueError, match="gpt2-small"):
        load_language_model(replace(TINY, backbone="random:huge"))


@pytest.mark.slow
def test__load_language_model__compiled__our_side_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = list[Any]()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compiled.append((self, options)))
    model = load_language_model(replace(TINY, compile=True))
    assert [(module is model.backbone, options) for module, options in compiled] == [(True, {"dynamic": True})]
    assert model.backbone is not model.with_head.base_model


def test__random__same_seed__same_weights() -> None:
    first, second, other = (load_language_model(replace(TINY, seed=seed)).backbone.wte.weight for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
