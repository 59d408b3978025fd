"""Views, the ways in which a backbone reads an input, and the options that all views of a model share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral
from typing import Any

from transformers_tart.checks.arguments import as_flag, shorten, well_formed
from transformers_tart.checks.bounds import MAX_INTEGER, MAX_LAYERS, MAX_TEMPLATE, check_integer
from transformers_tart.checks.strict_config import FieldError
from transformers_tart.checks.templates import parse_template, parse_view_template, template_fields


IN_CONTEXT_PROTOCOLS = ("vanilla", "loo")
PROTOCOLS = ("stream", *IN_CONTEXT_PROTOCOLS)
MEDIA_POOLINGS = ("mean", "first", "max")
KIND_POOLINGS = ("grid", "energy")  # of images alone, and of audio alone
PROMPT_POOLINGS = ("mean", "last", "first", "max")  # of texts after a prompt of examples
POOLINGS = (*PROMPT_POOLINGS, "second", "early_mean", "weightedmean", "mean_sqrt_len_tokens")
LAYER_NAMES = ("all", "late")
MAX_VIEWS = 64
MAX_NAME = 100  # characters


def _as_slice(layers: str) -> slice:
    begin, _, end = layers.partition(":")
    return slice(int(begin) if begin else None, int(end) if end else None)


def _check_layers(layers: Any) -> int | str:
    """Return layers as an integer or a string, a slice in its shortest form."""
    if isinstance(layers, str) and layers in LAYER_NAMES:
        return layers
    if isinstance(layers, Integral) and not isinstance(layers, bool):
        check_integer("layers", int(layers), -MAX_LAYERS, MAX_LAYERS)
        return int(layers)
    written = layers
    if isinstance(layers, slice) and layers.step in (None, 1):
        written = _written(layers)
    try:
        chosen = _as_slice(written) if isinstance(written, str) and ":" in written else None
    except ValueError:
        chosen = None
    if chosen is None or not _is_from_one_end(chosen):
        raise ValueError(
            f"layers is {shorten(layers)}; it must be an index, a slice of one layer or more whose bounds count from "
            'one end, "late" or "all".'
        )
    return _written(chosen)


def _written(layers: slice) -> str:
    return ":".join("" if bound is None else str(bound) for bound in (layers.start, layers.stop))


def _is_from_one_end(layers: slice) -> bool:
    """Return whether the bounds of a slice count from one end, and leave a layer between them."""
    bounds = [bound for bound in (layers.start, layers.stop) if bound is not None]
    if any(abs(bound) > MAX_LAYERS for bound in bounds) or len({bound < 0 for bound in bounds}) > 1:
        return False
    return layers.stop != 0 and (len(bounds) < 2 or layers.start < layers.stop)


def check_pooling(pooling: Any, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError unless a pooling is one of those that are allowed or, of texts, several joined by `+`."""
    joined = pooling.split("+") if isinstance(pooling, str) and allowed == POOLINGS else [pooling]
    if not all(isinstance(each, str) and each in allowed for each in joined) or len({*joined}) < len(joined):
        several = ", or several joined by +" if allowed == POOLINGS else ""
        raise ValueError(f"pooling is {shorten(pooling)}; it must be one of {allowed}{several}.")


@dataclass(frozen=True)
class View:
    r"""
    A way of turning an input into an embedding.

    ```python
    >>> View(template='This text: "{text}" means in one word: "', pooling="last", layers="late")
    ```

    Args:
        name (`str`, *optional*):
            Name in messages and in the card; made of the pooling when not given.
        template (`str`, *optional*):
            Text around the input, with `{text}`, which may be repeated, and for pairs of texts `{text_pair}`. In a
            template of single texts, the parts of a pair stand on lines of their own. With the protocols `vanilla` and
            `loo` it is the template of an example in the prompt, with `{label}`. Without one, an input stands alone,
            with the special tokens of the tokenizer. Images and audio have none.
        pooling (`str`, *optional*, defaults to `"mean"`):
            Of texts `"mean"`, `"max"`, `"first"`, `"second"`, `"last"`, `"early_mean"`, weighted by 1, 1/2, 1/3, ...,
            or as in sentence-transformers, `"weightedmean"` (by position) and `"mean_sqrt_len_tokens"`. `"last"` is
            the last token of the template, the others pool the tokens of the text, of its last copy where a template
            repeats it. Without a template, special tokens are pooled too; only `"early_mean"` leaves the first token
            out, which is special in most encoders. Several are joined by `+`, as in `"mean+max"`, and concatenated.
            Of images and audio `"mean"`, `"max"` or `"first"`. Of images also `"grid"`, the means of the four quarters
            of an image, for backbones that give a map of features or a square of patches. Of audio also `"energy"`,
            the mean of the frames weighted by the amplitude of their sound, for backbones whose outputs are frames in
            order.
        layers (`int`, `slice` or `str`, *optional*, defaults to `"late"`):
            Index into the hidden states (0 is the input embedding, -1 the last layer), a slice of them or the same as
            a string (`"8:12"`), `"late"`, their last third, or `"all"`. Several layers stand side by side, each
            centered and scaled by the support set.
        normalize (`bool`, *optional*, defaults to `False`):
            Whether each embedding, of each layer, is divided by its Euclidean norm.
        truncate_dim (`int`, *optional*):
            Number of components to keep, the first ones, after the normalization (Matryoshka embeddings).
        head (`bool`, *optional*, defaults to `False`):
            Whether the Dense modules of a sentence encoder follow the pooling.
        skip (`int`, *optional*, defaults to 0):
            Number of tokens at the beginning that the pooling leaves out.

    Raises:
        ValueError, TypeError: On a template that cannot be read, or layers of another form.
    """

    name: str | None = None
    template: str | None = None
    pooling: str = "mean"
    layers: Any = "late"
    normalize: bool = False
    truncate_dim: int | None = None
    head: bool = False
    skip: int = 0

    def __post_init__(self) -> None:
        for field in ("name", "template", "pooling"):
            value = getattr(self, field)
            if not isinstance(value, str) and (value is not None or field == "pooling"):
                raise FieldError(f"{field} is {shorten(value)} of type {type(value).__name__}; it must be a string.")
        if self.name is not None and not (0 < len(self.name) <= MAX_NAME and self.name.isprintable()):
            raise ValueError(f"The name of a view is {shorten(self.name)}; give 1 to {MAX_NAME} printable characters.")
        if self.template is not None and len(self.template) > MAX_TEMPLATE:
            raise ValueError(f"template has {len(self.template)} characters; at most {MAX_TEMPLATE} are read.")
        if self.template is not None:
            object.__setattr__(self, "template", well_formed(self.template))
            parse_template(self.template) if self.is_of_prompt else parse_view_template(self.template)
        for field in ("normalize", "head"):
            object.__setattr__(self, field, as_flag(getattr(self, field), field))
        check_integer("skip", self.skip, 0, MAX_INTEGER)
        check_integer("truncate_dim", 1 if self.truncate_dim is None else self.truncate_dim, 1, MAX_INTEGER)
        if self.template is not None and (self.head or self.skip or {"last"} < {*self.pooling.split("+")}):
            raise ValueError(
                'A view with a template has no head, skips no tokens and joins "last" to no other pooling, whose '
                "tokens are those of the text; give a view without a template, or two views."
            )
        object.__setattr__(self, "layers", _check_layers(self.layers))

    @property
    def is_of_prompt(self) -> bool:
        """`True` for a template of labeled examples."""
        return self.template is not None and "label" in template_fields(self.template)

    @property
    def parts(self) -> int:
        """Number of layers of an embedding that each hidden state gives: the four quarters of a grid, else one."""
        return 4 if self.pooling == "grid" else 1

    def layers_of(self, count: int) -> Sequence[int]:
        """Return the indices of its layers among `count` hidden states, which may be none."""
        named = {"all": slice(None), "late": slice(2 * count // 3, None)}
        if isinstance(self.layers, str):
            return range(count)[named.get(self.layers) or _as_slice(self.layers)]
        return [range(count)[self.layers]] if -count <= self.layers < count else ()

    def indices(self, count: int) -> Sequence[int]:
        """Return the indices of its layers among `count` hidden states.

        Raises:
            ValueError: When there are none.
        """
        if found := self.layers_of(count):
            return found
        raise ValueError(
            f'layers is {self.layers!r}; the backbone has hidden states 0 to {count - 1}, "late" or "all".'
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "View":
        """Return a view from the fields of a config."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(map(str, set(given) - known)):
            raise ValueError(
                f"A view has the unknown fields {shorten(unknown)}; it has {sorted(known)}. Update transformers-tart "
                "if the task is newer than this version."
            )
        return cls(**given)


# Arguments of version 0.1, which describe the only view of a model.
VIEW_ARGUMENTS = ("template", "pooling", "normalize", "layers")
# Arguments of a composition that a pipeline has no other use for.
COMPOSITION = ("views", *VIEW_ARGUMENTS, "protocol", "prompt", "prompt_name", "truncate_dim")


def take_view_arguments(arguments: dict[str, Any], views: Any = None) -> dict[str, Any]:
    """Return the arguments of version 0.1 that are given; all of them are taken out.

    Raises:
        ValueError: When views are given too.
    """
    given = {name: value for name in VIEW_ARGUMENTS if (value := arguments.pop(name, None)) is not None}
    if given and views is not None:
        raise ValueError(f"views and {sorted(given)} are given, which describe a view of their own; give one.")
    return given


def check_no_view_arguments(config: Mapping[str, Any]) -> None:
    """Raise a ValueError where a field of version 0.1 was set on a config, which would change nothing."""
    if given := [name for name in VIEW_ARGUMENTS if name in config]:
        raise ValueError(
            f"config.{given[0]} is set to {shorten(config[given[0]])}, but the views of the config decide; delete it, "
            f"and set config.views = [View({given[0]}=..., ...)]."
        )


def single_view(arguments: Mapping[str, Any], layers: int | str) -> View:
    """Return the view that arguments of version 0.1 describe, those that are `None` at their defaults."""
    given = {name: arguments[name] for name in VIEW_ARGUMENTS if arguments.get(name) is not None}
    return as_views(View(**{"layers": layers, **given}))[0]


def as_views(given: Any, where: str = "views") -> tuple[View, ...]:
    """Return views, or the fields of views, as a tuple, each with a name of its own.

    Raises:
        ValueError, TypeError: On anything else, none, too many, or two of the same name.
    """
    if isinstance(given, (View, Mapping)):
        given = (given,)
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, (View, Mapping)) for each in given):
        raise FieldError(f"{where} is {shorten(given)} of type {type(given).__name__}; give a list of View objects.")
    if not 0 < len(given) <= MAX_VIEWS:
        raise ValueError(f"{where} has {len(given)} views; give 1 to {MAX_VIEWS}.")
    views = [each if isinstance(each, View) else View.from_dict(each) for each in given]
    taken = {view.name for view in views}
    for i, view in enumerate(views):
        if view.name is None:
            if view.pooling not in KIND_POOLINGS:
                check_pooling(view.pooling, POOLINGS)
            names = (f"{view.pooling}{'' if n == 1 else f'_{n}'}" for n in range(1, len(views) + 1))
            views[i] = replace(view, name=next(name for name in names if name not in taken))
            taken.add(views[i].name)
    if len(taken) < len(views):
        raise ValueError(f"{where} holds two views of one name, of {shorten([view.name for view in views])}.")
    return tuple(views)
