"""Imports go one way: each room imports itself and the rooms below it, nothing above."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY, PRETRAINING = ROOT / "nnunet_fm", ROOT / "pretrain" / "nnunet_fm_pretrain"
# what each room may import beside itself and `internal`
LIBRARY_ROOMS = {
    "cli": {"experiments", "heads", "nnunet", "features", "network", "encoders", "evaluation"}
    | {"data", "nnunet_fm_pretrain"},
    "experiments": {"nnunet", "evaluation", "data"},
    "heads": {"features", "encoders", "evaluation", "data"},
    "nnunet": {"network", "encoders", "data"},
    "features": {"encoders", "data"},
    "network": {"encoders"},
    "encoders": {"data"},
    "evaluation": {"data"},
    "data": set(),
    "internal": set(),
}
PRETRAINING_ROOMS = {
    "cli": {"doctor", "runs", "engine", "data", "methods", "probing"},
    "doctor": {"engine", "data", "methods"},
    "runs": {"engine", "data", "methods"},
    "probing": {"data", "methods"},
    "methods": {"engine", "data"},
    "engine": {"data"},
    "data": set(),
}
FROM_THE_LIBRARY = {"encoders", "data", "evaluation", "internal"}  # what pretraining may import
ALIASES = {"trainer.py", "optimisation.py", "network25d.py", "__init__.py"}


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def modules(package: Path) -> list[Path]:
    return sorted(p for p in package.rglob("*.py") if p.relative_to(package).name != "__main__.py")


def room(package: Path, path: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", LIBRARY_ROOMS)
def test_a_room_of_the_library_imports_only_rooms_below_it(name: str) -> None:
    allowed = LIBRARY_ROOMS[name] | {name, "internal"}
    upward = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in modules(LIBRARY / name)
        for module in imported(path)
        if module.startswith("nnunet_fm") and room_of(module) not in allowed
    ]
    assert not upward, "\n".join(upward)


def room_of(module: str) -> str:
    """`nnunet_fm.heads.mlp` -> `heads`; the sister package goes by its own name."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] if package == "nnunet_fm" else package


@pytest.mark.parametrize("name", PRETRAINING_ROOMS)
def test_a_room_of_pretraining_imports_only_rooms_below_it(name: str) -> None:
    allowed = PRETRAINING_ROOMS[name] | {name}
    files = modules(PRETRAINING / name) if (PRETRAINING / name).is_dir() else []
    wrong = []
    for path in files or [PRETRAINING / f"{name}.py"]:
        for module in imported(path):
            package, _, rest = module.partition(".")
            below = rest.split(".")[0]
            if package == "nnunet_fm_pretrain" and below not in allowed:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if package == "nnunet_fm" and below not in FROM_THE_LIBRARY:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_room_is_in_the_table() -> None:
    found = {room(LIBRARY, path) for path in modules(LIBRARY) if path.parent != LIBRARY}
    assert found == set(LIBRARY_ROOMS)
    assert {p.name for p in LIBRARY.glob("*.py")} == ALIASES


def test_only_one_room_knows_nnunet() -> None:
    strangers = [
        f"{path.relative_to(ROOT)} imports {module}"
        for package in (LIBRARY, PRETRAINING)
        for path in modules(package)
        for module in imported(path)
        if module.split(".")[0] == "nnunetv2" and room(package, path) != "nnunet"
    ]
    assert not strangers, "\n".join(strangers)


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for package in (LIBRARY, PRETRAINING)
        for path in modules(package)
        if path.name != "__init__.py"
    }
    graph = {
        name: {
            found
            for module in imported(path)
            for found in (module, module.rpartition(".")[0])
            if found in names and found != name
        }
        for name, path in names.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle
