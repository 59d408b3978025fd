"""Rules of the source tree: where modules stand, what they may import, and what may not stand twice."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import transformers_tart


PACKAGE = "transformers_tart"
SOURCE = Path(transformers_tart.__file__).parent

# A room imports its own layer and those above it, never one below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "checks", "files"),
    ("configuration_tart", "configuration_reasoner", "inputs"),
    ("loading", "hub"),
    ("projection", "reasoners"),
    ("training", "conversion", "backbones"),
    ("embeddings",),
    ("hints",),
    ("support",),
    ("modeling_answers", "modeling_support", "modeling_base", "modeling_tart", "repository"),
    ("answers",),
    ("pipeline_tart",),
    (PACKAGE,),
    ("evaluation", "bench", "export", "sklearn", "ui"),
    ("commands",),
    ("cli", "__main__"),
)
MOST_AT_THE_ROOT = 15
MOST_LINES = 300  # of a file
MOST_LINES_OF_A_FUNCTION = 40  # beside its docstring
MOST_LINES_OF_A_TWIN = 5
# Functions that stand twice to the letter, each with its reason.
TWINS: dict[str, str] = {}
MODALITIES = {"text", "image", "audio"}
MOST_FILES_OF_MODALITY = 5
NO_NOUN = re.compile(r"(What|Whether|One|Where|How|Everything)\b")
MUTATORS = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault"),
    "update",
}
CONTAINERS = {"Counter", "OrderedDict", "WeakKeyDictionary", "WeakValueDictionary", "defaultdict", "deque", "dict"} | {
    "list",
    "local",
    "set",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, tuple[Path, ast.Module]]:
    """File and syntax tree of each module by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text()))
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Modules of the package that each module imports, at its top or inside a function."""
    found: dict[str, set[str]] = {}
    for name, (_, tree) in modules().items():
        own = found.setdefault(name, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                own.update(alias.name for alias in node.names if alias.name in modules())
            elif isinstance(node, ast.ImportFrom) and node.module in modules():
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                own.update(inner & set(modules()))
                if inner - set(modules()):
                    own.add(node.module)
        own.discard(name)
    return found


def room(module: str) -> str:
    """Return the first folder or file of a module below the package; of the package its own name."""
    return module.split(".")[1] if "." in module else module


def reachable(start: str) -> set[str]:
    """Return all modules that importing one imports, at once or later."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = imports()[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def definitions(kinds: type | tuple[type, ...]) -> Iterator[tuple[str, ast.AST]]:
    """Yield the place and node of each definition of these kinds."""
    for path, tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 1)}", node


def expect_none(found: Iterable[str], most: int = 0) -> None:
    """Fail with the list of what is found, unless it is short enough."""
    listed = sorted(set(found))
    assert len(listed) <= most, "\n".join(listed)


def test__root__modules__few() -> None:
    expect_none((path.name for path in SOURCE.glob("*.py")), MOST_AT_THE_ROOT)


@pytest.mark.slow
def test__imports__circles__none() -> None:
    expect_none(name for name in modules() if name in reachable(name))


def test__rooms__layers__one_each() -> None:
    expect_none({room(module) for module in modules()} - {name for names in LAYERS for name in names})


def test__imports__arrows__run_one_way() -> None:
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    expect_none(
        f"{module} -> {other}"
        for module, others in imports().items()
        for other in others
        if layer.get(room(other), 0) > layer.get(room(module), len(LAYERS))
    )


def is_property(node: ast.AST) -> bool:
    """Return whether a function is a property, cached or not."""
    decorators = node.decorator_list if isinstance(node, Function) else []
    return any(ast.unparse(each).split(".")[-1] in ("property", "cached_property") for each in decorators)


def test__docstrings__of_modules_classes_and_properties__begin_with_a_noun() -> None:
    nouns = [
        (place, ast.get_docstring(node) or "")  # type: ignore[arg-type]
        for place, node in definitions((ast.Module, ast.ClassDef, *Function.__args__))
        if not isinstance(node, Function) or is_property(node)
    ]
    expect_none(f"{place} {text.splitlines()[0]}" for place, text in nouns if NO_NOUN.match(text))


@pytest.mark.slow
def test__functions__to_the_letter__stand_once() -> None:
    places = defaultdict(list)
    for place, node in definitions(Function.__args__):
        assert isinstance(node, Function)
        body = node.body[ast.get_docstring(node) is not None :]
        if body and body[-1].end_lineno - node.lineno >= MOST_LINES_OF_A_TWIN:  # type: ignore[operator]
            places[ast.dump(node.args) + "".join(map(ast.dump, body))].append(f"{place} {node.name}")
    twins = [found for found in places.values() if len(found) > 1]
    expect_none(" = ".join(found) for found in twins if found[0].split()[1] not in TWINS)
    assert len(TWINS) <= 3


def looks_at_modality(node: ast.AST) -> bool:
    """Return whether an expression compares or looks up a modality, or asks for one by a class."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        named = any(re.search("modality|kind", ast.unparse(side)) for side in sides)
        return named and any(
            isinstance(part, ast.Constant) and part.value in MODALITIES for side in sides for part in ast.walk(side)
        )
    if isinstance(node, ast.Subscript):
        return "modality" in ast.unparse(node.slice) and not ast.unparse(node.value).lower().endswith("modalities")
    if isinstance(node, ast.Dict):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        return len(keys & MODALITIES) > 1
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        return re.search(r"\bTart\w*(Image|Audio|Media)\w*", ast.unparse(node.args[1])) is not None
    return False


def test__modality__files_that_look_at_it__few() -> None:
    looking = (path for path, tree in modules().values() if any(map(looks_at_modality, ast.walk(tree))))
    expect_none((str(path.relative_to(SOURCE)) for path in looking), MOST_FILES_OF_MODALITY)


def containers(tree: ast.Module) -> set[str]:
    """Return the names of a module that are bound to a list, dict, set or the like."""
    found = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        is_call = isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in CONTAINERS
        kinds = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
        if is_call or isinstance(value, kinds):
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def mutated_name(node: ast.AST) -> str | None:
    """Return the name of the container that a statement or call changes, if any."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MUTATORS:
        return ast.unparse(node.func.value)
    if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        return ast.unparse(node.value)
    return node.target.id if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else None


@pytest.mark.slow
def test__modules__state__none() -> None:
    names = {name: containers(tree) for name, (_, tree) in modules().items()}
    changed = []
    for name, (path, tree) in modules().items():
        visible = set(names[name])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in names:
                visible |= {alias.asname or alias.name for alias in node.names if alias.name in names[node.module]}
        for function in (node for node in ast.walk(tree) if isinstance(node, Function)):
            for node in ast.walk(function):
                if isinstance(node, ast.Global) or mutated_name(node) in visible:
                    changed.append(f"{path.relative_to(SOURCE)}:{node.lineno} {ast.unparse(node)}")  # type: ignore[attr-defined]
    expect_none(changed)


def test__files__lines__few() -> None:
    found = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path, _ in modules().values()}
    expect_none(f"{name} {count}" for name, count in found.items() if count > MOST_LINES)


def test__functions__lines__few() -> None:
    long = []
    for place, node in definitions(Function.__args__):
        assert isinstance(node, Function)
        body = node.body[ast.get_docstring(node) is not None :] or node.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
        if lines > MOST_LINES_OF_A_FUNCTION:
            long.append(f"{place} {node.name} {lines}")
    expect_none(long)
