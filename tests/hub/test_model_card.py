"""Cards parse, are true, and hold nothing of the user's. They are not validated, which would ask the Hub."""

import re
from pathlib import Path

import pytest
from helpers.builders import build_reasoner, make_examples, make_pipeline, save_backbone, shared_reasoner
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given
from hypothesis import strategies as st

from transformers_tart import TartConfig, TartForSequenceClassification, TartReasonerConfig
from transformers_tart.hub.card import CardFacts, HintFacts, classifier_card, reasoner_card
from transformers_tart.reasoners import EMBEDDED


CARDS = sorted(Path(__file__).parents[2].glob("hub_cards/tart-*/README.md"))
STORAGE = "12 examples of 4.0 kB in float16, 60.0 kB in all"
RESULT = EvalResult(
    task_type="text-classification",
    dataset_type="sms_spam",
    dataset_name="SMS Spam",
    dataset_split="test",
    metric_type="accuracy",
    metric_value=0.987,
)


def make_config(**fields: object) -> TartConfig:
    return TartConfig(reasoner_config=TartReasonerConfig().to_dict(), base_model_name_or_path="org/base", **fields)


def code_blocks(card: ModelCard) -> list[str]:
    return [part.split("```")[0] for part in card.content.split("```python\n")[1:]]


def table_rows(card: ModelCard, heading: str) -> list[str]:
    section = card.content.split(f"## {heading}")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")]


def assert_sound(card: ModelCard) -> None:
    """Check any card: it survives parsing, its tables are square and its code compiles."""
    assert ModelCard(card.content).data.to_dict() == card.data.to_dict()
    assert {"tart", "in-context-learning"} <= set(card.data.tags)
    assert card.data.library_name == "transformers"
    assert card.content.count("```") % 2 == 0
    assert "{{" not in card.content
    rows = table_rows(card, "Model description")
    assert len(rows) > 3
    assert {row.replace("\\|", "").count("|") for row in rows} == {3}
    assert code_blocks(card)
    for block in code_blocks(card):
        compile(block, "card", "exec")


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.parent.name)
def test__published_card__parsed__has_the_facts_of_its_kind(path: Path) -> None:
    card = ModelCard.load(path)
    assert card.data.library_name == "transformers"
    assert {"tart", "in-context-learning"} <= set(card.data.tags)
    assert card.data.license
    for block in code_blocks(card):
        compile(block, str(path), "exec")


def test__classifier_card__without_support__tells_how_to_give_examples() -> None:
    card = classifier_card(make_config(), CardFacts(repo_id="me/spam"))
    assert_sound(card)
    assert (card.data.pipeline_tag, card.data.base_model) == ("text-classification", "org/base")
    assert 'model="me/spam", examples=examples' in card.content
    assert "The repository stores" not in card.content
    assert "support set |" not in card.content


@pytest.mark.parametrize("stores_texts", [False, True])
def test__classifier_card__with_support__tells_what_is_stored(stores_texts: bool) -> None:
    config = make_config(id2label={0: "ham", 1: "spam"})
    card = classifier_card(config, CardFacts(), support_storage=STORAGE, stores_texts=stores_texts)
    assert_sound(card)
    assert "| labels | `ham`, `spam` |" in table_rows(card, "Model description")
    assert f"| support set | {STORAGE} |" in table_rows(card, "Model description")
    assert ("and their texts" in card.content, "not their texts" in card.content) == (stores_texts, not stores_texts)


@given(names=st.lists(st.text(min_size=1), min_size=2, max_size=4, unique=True))
def test__classifier_card__any_label_names__parses(names: list[str]) -> None:
    assert_sound(classifier_card(make_config(id2label=dict(enumerate(names))), CardFacts(), support_storage=STORAGE))


@pytest.mark.parametrize("name", ["a|b", "two\nlines", "`code`", "---", "| |", "{{ x }}", "## Limits"])
def test__classifier_card__label_names_with_markup__keep_the_table(name: str) -> None:
    config = make_config(id2label={0: name, 1: "other"})
    card = classifier_card(config, CardFacts(), support_storage=STORAGE)
    rows = table_rows(card, "Model description")
    assert {row.replace("\\|", "").count("|") for row in rows} == {3}
    assert any("`other` |" in row for row in rows)


def test__classifier_card__facts_of_the_publisher__are_in_the_metadata() -> None:
    facts = CardFacts("me/spam", datasets=["sms_spam"], language="en", license="apache-2.0", results=[RESULT])
    card = classifier_card(make_config(), facts, support_storage=STORAGE)
    assert_sound(card)
    assert (card.data.datasets, card.data.language, card.data.license) == (["sms_spam"], "en", "apache-2.0")
    assert card.data.eval_results[0].metric_value == 0.987
    assert table_rows(card, "Evaluation results")[-1] == "| SMS Spam | test | accuracy | 0.987 |"


def test__classifier_card__local_backbone__is_not_named(tmp_path: Path) -> None:
    config = make_config()
    config.base_model_name_or_path = str(tmp_path)
    card = classifier_card(config, CardFacts())
    assert card.data.base_model is None
    assert str(tmp_path) not in card.content
    assert "| backbone | a local model |" in card.content


def test__reasoner_card__is_sound() -> None:
    for reasoner in (shared_reasoner(), build_reasoner("gpt2"), build_reasoner(max_classes=2)):
        card = reasoner_card(reasoner.config, CardFacts(repo_id="me/reasoner", license="mit", results=[RESULT]))
        assert_sound(card)
        assert 'TartReasoner.from_pretrained("me/reasoner")' in card.content
        assert card.data.pipeline_tag is None


@pytest.mark.parametrize("options", [{}, {"include_texts": True}, {"include_backbone": True}])
def test__saved_task__card__is_sound_and_true(options: dict, tmp_path: Path) -> None:
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"))
    make_pipeline(model, examples=make_examples(12)).save_pretrained(tmp_path / "task", **options)
    card = ModelCard.load(tmp_path / "task" / "README.md")
    assert_sound(card)
    assert ("and their texts" in card.content) == ("include_texts" in options)
    assert re.search(r"\| support set \| 12 examples of [\d.]+ kB in float16, [\d.]+ kB in all \|", card.content)


def test__saved_composition_and_reasoner__cards__are_sound(tmp_path: Path) -> None:
    build_reasoner().save_pretrained(tmp_path / "reasoner")
    model = TartForSequenceClassification.from_backbone(save_backbone(tmp_path / "base"))
    model.save_pretrained(tmp_path / "model")
    for name in ("reasoner", "model"):
        assert_sound(ModelCard.load(tmp_path / name / "README.md"))


@pytest.mark.parametrize("name", EMBEDDED)
def test__shipped_reasoner__card__is_the_published_one(name: str) -> None:
    card = next(path for path in CARDS if path.parent.name == f"tart-reasoner-{name}")
    assert (EMBEDDED[name] / "README.md").read_text() == card.read_text()


@pytest.mark.parametrize("has_examples", [True, False])
def test__classifier_card__hints__named_with_what_they_read(has_examples: bool) -> None:
    hints = HintFacts(("label_similarity", "mine"), "The topic is {}.", 1, has_examples)
    card = classifier_card(make_config(id2label={0: "ham", 1: "spam"}), CardFacts(), STORAGE, False, hints)
    assert_sound(card)
    rows = table_rows(card, "Model description")
    assert "| label hints | `label_similarity`, `mine` |" in rows
    assert "| texts of labels | names of the classes, 1 of them descriptions, in `The topic is {}.` |" in rows
    assert ("Zero-shot text classification" in card.content) == (not has_examples)
    assert ("labels of the support set" in card.content) == has_examples
    assert "stores what the label hints need" in card.content
