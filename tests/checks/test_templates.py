"""Templates: what can be read, and what is refused."""

import pytest

from transformers_tart import TartConfig
from transformers_tart.checks.templates import PAIR_TEMPLATE, TEMPLATE, parse_template


def test__parse_template__of_the_paper__its_parts() -> None:
    assert parse_template(TEMPLATE) == (("Sentence: ",), "\nLabel:", " ", "\n")
    assert parse_template(PAIR_TEMPLATE) == (("Sentence: ", "\nSentence: "), "\nLabel:", " ", "\n")


def test__parse_template__nothing_around_the_fields__empty_parts() -> None:
    assert parse_template("{text} => {label}") == (("",), " =>", " ", "")
    assert parse_template("{{{text}}}{label}") == (("{",), "}", "", "")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{text}",
        "{label}",
        "{label} {text}",
        "{text_pair} {text} {label}",
        "{text} {text} {label}",
        "{text} {label} {label}",
        "{text} {word} {label}",
        "{text!r} {label}",
        "{text:>9} {label}",
        "{} {label}",
        "{text {label}",
    ],
)
def test__parse_template__no_template__says_what_one_is(template: str) -> None:
    with pytest.raises(
        ValueError, match=r"a template holds \{text\}, for pairs then \{text_pair\}, and then \{label\}"
    ):
        parse_template(template)


def test__config__template__checked_and_kept_for_prompts_alone() -> None:
    assert TartConfig(protocol="loo", template="{text} {label}").views[0].template == "{text} {label}"
    with pytest.raises(ValueError, match=r"a template holds \{text\}"):
        TartConfig(protocol="vanilla", template="{text}")
    with pytest.raises(ValueError, match='protocol "stream" embeds texts alone'):
        TartConfig(template="{text} {label}")
