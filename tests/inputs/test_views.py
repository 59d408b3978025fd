"""Views as records: layers, names, JSON, and configs of version 0.1."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from transformers_tart import TartConfig, TartImageConfig
from transformers_tart.checks.bounds import MAX_TEMPLATE
from transformers_tart.inputs.views import EmbeddingOptions, View, as_views


pytestmark = pytest.mark.core


@pytest.mark.parametrize(
    ("layers", "count", "expected"),
    [
        (0, 5, [0]),
        (-1, 5, [4]),
        (4, 5, [4]),
        (-5, 5, [0]),
        ("all", 5, [0, 1, 2, 3, 4]),
        ("late", 31, list(range(20, 31))),
        ("late", 2, [1]),
        ("late", 1, [0]),
        ("8:12", 31, [8, 9, 10, 11]),
        ("8:12", 10, [8, 9]),
        (slice(8, 12), 31, [8, 9, 10, 11]),
        (slice(-3, None), 5, [2, 3, 4]),
        ("-3:-1", 5, [2, 3]),
        (":2", 5, [0, 1]),
        (":", 3, [0, 1, 2]),
    ],
)
def test__indices__any_layers__of_the_hidden_states(layers: Any, count: int, expected: list[int]) -> None:
    assert list(View(layers=layers).indices(count)) == expected


@pytest.mark.parametrize("layers", [5, -6, "7:9", "5:"])
def test__indices__layers_that_are_not_there__said(layers: Any) -> None:
    with pytest.raises(ValueError, match=r'the backbone has hidden states 0 to 4, "late" or "all"'):
        View(layers=layers).indices(5)


@pytest.mark.parametrize(
    "layers",
    ["some", "", "1", "1:2:3", "a:b", "2:-1", "-1:2", "3:3", "5:2", ":0", 1.5, None, True, [1, 2], slice(0, 4, 2)]
    + [slice(1.5, None), slice(True, None), f"{10**9}:", "9" * 5000 + ":"],
)
def test__view__layers_of_another_form__refused(layers: Any) -> None:
    with pytest.raises(ValueError, match="it must be an index, a slice of one layer or more"):
        View(layers=layers)
    with pytest.raises(ValueError, match="layers is"):
        View(layers=10**9)


def test__view__slices__one_form() -> None:
    assert View(layers=slice(8, 12)) == View(layers="8:12") == View(layers=" 08 : 12")
    assert View(layers=slice(None, -1)).layers == ":-1"


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"name": ""}, ValueError, "give 1 to 100 printable characters"),
        ({"name": "a" * 101}, ValueError, "give 1 to 100 printable characters"),
        ({"name": "a\nb"}, ValueError, "give 1 to 100 printable characters"),
        ({"name": 3}, TypeError, "name is 3 of type int; it must be a string"),
        ({"template": 3}, TypeError, "template is 3 of type int; it must be a string"),
        ({"pooling": None}, TypeError, "pooling is None of type NoneType; it must be a string"),
        ({"template": "no field"}, ValueError, "a template of a view holds {text}"),
        ({"template": "{text} {word}"}, ValueError, "a template of a view holds {text}"),
        ({"template": "{text_pair} {text}"}, ValueError, "a template of a view holds {text}"),
        ({"template": "{text} {text_pair} {text}"}, ValueError, "a template of a view holds {text}"),
        ({"template": "{text!r}"}, ValueError, "formats its fields"),
        ({"template": "{text"}, ValueError, "cannot be read"),
        ({"template": "{label} {text}"}, ValueError, "and then {label}"),
        ({"template": "{text}" + "a" * MAX_TEMPLATE}, ValueError, "characters; at most"),
        ({"normalize": "yes"}, (ValueError, TypeError), "normalize"),
    ],
)
def test__view__invalid_field__says_what_is_allowed(fields: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        View(**fields)


VIEW = st.builds(
    View,
    st.none() | st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
    st.sampled_from([None, "{text}", 'a {{"}} {text} b {text}', "{text} {text_pair} {text} {text_pair}", "é{text}\n"]),
    st.sampled_from(["mean", "last", "first", "second", "max"]),
    st.sampled_from(["all", "late", 0, -2, 7, "1:3", "-4:", slice(2, 5)]),
    st.booleans(),
)


@given(views=st.lists(VIEW, min_size=1, max_size=5, unique_by=lambda view: view.name or id(view)))
def test__views__json__same_again(views: list[View], tmp_path_factory: pytest.TempPathFactory) -> None:
    named = as_views(views)
    assert len({view.name for view in named}) == len(views)
    assert [replace(view, name=None) for view in named] == [replace(view, name=None) for view in views]
    plain = json.loads(json.dumps([view.as_dict() for view in named]))
    assert as_views(plain) == as_views(named) == named
    config = TartConfig(views=views)
    folder = tmp_path_factory.mktemp("config")
    config.save_pretrained(folder)
    loaded = AutoConfig.from_pretrained(folder)
    assert (loaded.views, loaded.embedding_options) == (named, config.embedding_options)


def test__as_views__names__of_the_poolings_where_not_given() -> None:
    names = [view.name for view in as_views([View(), View("mean"), View(), View(pooling="last"), View()])]
    assert names == ["mean_2", "mean", "mean_3", "last", "mean_4"]
    assert [view.name for view in as_views(View())] == ["mean"]


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ([], ValueError, "views has 0 views; give 1 to 64"),
        ([View()] * 65, ValueError, "views has 65 views; give 1 to 64"),
        ([View("a"), View("a", pooling="last")], ValueError, "two views of one name"),
        ("mean", TypeError, "give a list of View objects"),
        ([1], TypeError, "give a list of View objects"),
        ([{"pooling": "mean", "later": 1}], ValueError, "unknown fields .*later.*Update transformers-tart"),
        ([{1: "mean"}], ValueError, "unknown fields"),
        ([{"template": "no field"}], ValueError, "a template of a view holds"),
    ],
)
def test__as_views__anything_else__refused(views: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        as_views(views)
    with pytest.raises(error, match=message):
        EmbeddingOptions(views=views)
    with pytest.raises((ValueError, TypeError)):
        TartConfig(views=views)


@pytest.mark.parametrize(
    ("fields", "view"),
    [
        ({}, View("mean", layers="all")),
        ({"pooling": "last", "layers": -2, "normalize": True}, View("last", None, "last", -2, True)),
        ({"pooling": "mean", "normalize": False, "template": None, "layers": "all"}, View("mean", layers="all")),
        ({"protocol": "loo", "template": "{text} {label}"}, View("mean", "{text} {label}", "mean", "all")),
    ],
)
def test__tart_config__fields_of_version_0_1__one_view(fields: dict[str, Any], view: View, tmp_path: Path) -> None:
    assert TartConfig(**fields).views == (view,)
    TartConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = {name: value for name, value in json.loads(path.read_text()).items() if name != "views"}
    path.write_text(json.dumps({**saved, **fields}))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.views == (view,)
    assert not {"pooling", "normalize", "layers", "template"} & vars(config).keys()
    config.save_pretrained(tmp_path)
    assert not {"pooling", "normalize", "layers", "template"} & json.loads(path.read_text()).keys()


def test__tart_config__views_and_old_fields__refused() -> None:
    with pytest.raises(ValueError, match=r"views and \['layers', 'pooling'\] are given"):
        TartConfig(views=[View()], pooling="last", layers=-1)
    assert TartConfig(views=[View()], pooling=None).views == (View("mean"),)


def test__tart_config__views_that_do_not_suit__refused() -> None:
    labeled, other = "{text} {label}", "{text}: {label}"
    with pytest.raises(ValueError, match="reads all views from one prompt, and they have several templates"):
        TartConfig(protocol="loo", views=[View("a", labeled), View("b", other)])
    with pytest.raises(ValueError, match="reads all views from one prompt, and they have several templates"):
        TartConfig(protocol="loo", views=[View("a", labeled), View("b")])
    with pytest.raises(ValueError, match="a template holds {text}"):
        TartConfig(protocol="vanilla", views=[View("a", "{text}")])
    with pytest.raises(ValueError, match='protocol "stream" embeds texts alone'):
        TartConfig(views=[View("a"), View("b", labeled)])
    with pytest.raises(ValueError, match="template is '{text}', which is for texts, not for image"):
        TartImageConfig(views=[View("a", "{text}")])
    with pytest.raises(ValueError, match="pooling is 'last'; it must be one of"):
        TartImageConfig(views=[View("a"), View("b", pooling="last")])


def test__embedding_options__differences__fields_of_the_views() -> None:
    one = EmbeddingOptions(views=(View("a", layers=-1),))
    assert one.differences(EmbeddingOptions(views=(View("b", layers=-1),))) is None
    assert one.differences(EmbeddingOptions(views=(View("b", layers=0),))) == ("layers=-1", "layers=0")
    two = EmbeddingOptions(views=(View("a"), View("b")))
    other = replace(two, views=(View("a"), View("b", pooling="max")), max_length=3)
    assert two.differences(other) == ("max_length=None, b.pooling='mean'", "max_length=3, b.pooling='max'")
    assert one.differences(two) == ("views=['a']", "views=['a', 'b']")
    assert EmbeddingOptions(**json.loads(json.dumps({"views": [view.as_dict() for view in two.views]}))) == two
