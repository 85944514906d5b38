"""The house: no circles, imports that point down wherever they stand, faces, owners of models, no modules in texts."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
SYSTEMS = ("general", "cryotransformer", "cryosegnet", "cryoemmae", "deepcryopicker", "segmentation_crf", "template")
MODULES_IN_TEXTS = {
    "cryopick.pickers": "the group of entry points, which outside packages write into their pyproject.toml",
}
"""Texts that may name a module, and why."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports_of(tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    """The modules that a module imports anywhere: at its top, inside functions, and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    return {name: {one for one in imports_of(tree, trees) if one in trees} for name, tree in trees.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports, or none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def parsed(**sources: str) -> dict[str, ast.Module]:
    return {name: ast.parse(source) for name, source in sources.items()}


def test_a_circle_inside_functions_or_for_type_checkers_is_seen():
    trees = parsed(
        a="def f():\n    from b import g",
        b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c",
        c="class C:\n    def f(self):\n        import a",
        d="import a",
    )
    assert sorted(set(circle(graph(trees)))) == ["a", "b", "c"]
    assert not circle(graph(parsed(a="import b", b="import json", c="import a, b")))


def test_no_modules_import_each_other_in_a_circle():
    imports = graph(modules())
    assert len(imports["cryopick.pickers.general.picker"]) > 5
    assert not circle(imports)


def floors() -> list[list[str]]:
    """The layers of the package, highest first, as import-linter is told them; several on one floor."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def test_imports_point_down_inside_functions_and_for_type_checkers_too():
    floor_of = {room: (number, room) for number, rooms in enumerate(floors()) for room in rooms}

    def floor(module: str) -> tuple[int, str] | None:
        return floor_of.get(".".join(module.split(".")[:2]))

    climbing = [
        f"{name} imports {other}"
        for name, imported in graph(modules()).items()
        for other in imported
        if (here := floor(name)) and (there := floor(other)) and here != there and there[0] <= here[0]
    ]
    assert not climbing


def test_nobody_imports_past_the_face_of_a_system():
    packages = {f"cryopick.pickers.{system}" for system in SYSTEMS}
    past = [
        f"{name} imports {other}"
        for name, imported in graph(modules()).items()
        for other in imported
        for package in packages
        if other.startswith(f"{package}.") and name != package and not name.startswith(f"{package}.")
    ]
    assert not past


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_face_says_what_is_public_and_opens_without_heavy_libraries(system):
    code = (
        f"import sys, cryopick.pickers.{system} as face; assert face.__all__; [getattr(face, n) for n in face.__all__];"
        "print(*{'torch', 'torchvision', 'cv2', 'transformers', 'lightning', 'matplotlib', 'skimage', 'sklearn'}"
        " & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def module_level_calls(tree: ast.Module) -> Iterator[str]:
    """What could keep things for the life of the process: names of caching decorators and of mutable module state."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(called).split(".")[-1] in ("lru_cache", "cache"):
                    yield node.name
    for node in tree.body:
        if isinstance(node, ast.Global):
            yield from node.names
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            (target, *_) = node.targets if isinstance(node, ast.Assign) else [node.target]
            value = node.value
            is_call = isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in (
                *("dict", "list", "set", "OrderedDict", "defaultdict", "WeakValueDictionary", "Models"),
            )
            is_empty = isinstance(value, ast.Dict | ast.List | ast.Set) and not ast.unparse(value).strip("[]{} ")
            if is_call or is_empty:
                yield ast.unparse(target)


def test_no_module_keeps_models():
    """They are held by `Models`, which pickers own; what is kept per process is small and named here."""
    kept = {
        f"{name}: {what}"
        for name, tree in modules().items()
        if name.startswith(("cryopick.pickers", "cryopick.heatmap", "cryopick.inference"))
        for what in module_level_calls(tree)
    }
    assert kept == {
        "cryopick.inference.computing: processor_model",  # a name
        "cryopick.inference.device: _automatic_device",  # a word
        "cryopick.inference.device: _why_unusable",  # a sentence
        "cryopick.inference.processor: cpu_flags",  # words
        "cryopick.pickers.denoisers: _makers",
        "cryopick.pickers.families: _families",
        "cryopick.pickers.published_weights: _readers",
        "cryopick.pickers.registry: _broken",
        "cryopick.pickers.registry: _registered",
    }


def test_what_keeps_things_for_the_life_of_a_process_is_seen():
    source = "from functools import lru_cache\n_models = {}\n_held: list[int] = []\nNAMES = {'a': 1}\n"
    source += "@lru_cache(maxsize=2)\ndef load(path): ...\n@functools.cache\ndef other(): ...\n"
    assert set(module_level_calls(ast.parse(source))) == {"_models", "_held", "load", "other"}


def test_no_text_names_a_module_of_the_package():
    named = {
        f"{name}: {node.value}"
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.rstrip(".") in modules() and node.value.rstrip(".") not in ("cryopick", *MODULES_IN_TEXTS)
    }
    assert not named


@pytest.mark.parametrize(
    "module",
    [
        *("cryopick", "cryopick.scale.worker_process", "cryopick.workflows.simulate", "cryopick.evaluation.usage"),
        "cryopick.workflows.validate3d.part_worker",
    ],
)
def test_what_child_processes_run_is_a_module_that_knows_its_name(module):
    spec = find_spec(module)
    assert spec is not None
    started = __import__(module, fromlist=["__spec__"])
    assert started.__spec__.name == module
    main = modules().get(f"{module}.__main__", modules()[module])
    assert "__main__" in ast.unparse(main)


def test_the_package_runs_as_the_command_line():
    done = subprocess.run([sys.executable, "-m", "cryopick", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cryopick ")


def test_each_family_is_found_through_the_face_of_its_picker():
    from cryopick.pickers.families import family_of, trainable_pickers

    ours = [name for name in trainable_pickers() if name != "toy"]
    assert ours == ["cryoemmae", "cryosegnet", "cryotransformer", "deepcryopicker", "general", "segmentation-crf"]
    assert all(family_of(name).presets for name in ours)
