"""Wrong values for every key of sweeps, tasks of heads and recipes, derived from their models."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml

from nnunet_fm.experiments.config import Sweep, read_sweep
from nnunet_fm.heads.task import Task, read_task
from nnunet_fm.internal.config import Part
from nnunet_fm.internal.errors import InputError, UserError
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.brainfm.recipe import BrainFMRecipe
from nnunet_fm_pretrain.methods.brainfound.recipe import BrainFoundRecipe
from nnunet_fm_pretrain.methods.mae2d.recipe import Mae2dRecipe
from nnunet_fm_pretrain.methods.prism.recipe import PrismRecipe
from nnunet_fm_pretrain.methods.recipes import read_recipe
from nnunet_fm_pretrain.methods.volta3d.recipe import Volta3dRecipe

SWEEP = {"datasets": [7], "encoders": {"a": {"encoder": "dinov3_test16"}}, "splits": {"seed": 1}}
SWEEP |= {"expected": {7: {"cases": 9}}}
PARTS = {"encoders": "encoders.a", "expected": "expected.7"}  # places of parts in dicts
MAY_BE_EMPTY = {"gpus", "training_seeds", "expected.7.labels", "objective.regions"}
RECIPES = (
    "braindino_tiny_cpu",
    "brainfm_tiny_cpu",
    "brainfound_tiny_cpu",
    "mae2d_tiny_cpu",
    "prism_tiny_cpu",
    "volta3d_tiny_cpu",
)
KINDS = ("sweep", "task", "braindino", "brainfm", "brainfound", "mae2d", "prism", "volta3d")
NOT_FINITE = (".nan", ".inf", "-.inf")
ODD = ("", "x", "-1", "0", "1.5", "true", "null", "[]", "{}", "[[1]]", "{1: 2}", "[1, x]", "1e999")
ODD += ("9" * 40, "../x", "患" * 90)
BROKEN = ("2001-99-99", "!!timestamp x", "!!int x", "!!python/object:os.system 1", "[", "a: b: c")
BROKEN += ("*x", "&a [*a]", "'", "\x00", "!!binary x", "{[1]: 2}", "? x", "-" * 9)


class Settings:
    """A kind of settings: its model, and a function that reads them with one override."""

    def __init__(self, model: type[Part], read: Callable[[str], Part]) -> None:
        self.model = model
        self.read = read


def settings(folder: Path) -> dict[str, Settings]:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    return {
        "sweep": Settings(Sweep, lambda text: read_sweep(file, [text])),
        "task": Settings(Task, lambda text: read_task("classification", [text])),
        "braindino": Settings(
            BrainDinoRecipe, lambda text: read_recipe("braindino_tiny_cpu", [text])
        ),
        "brainfm": Settings(BrainFMRecipe, lambda text: read_recipe("brainfm_tiny_cpu", [text])),
        "brainfound": Settings(
            BrainFoundRecipe, lambda text: read_recipe("brainfound_tiny_cpu", [text])
        ),
        "mae2d": Settings(Mae2dRecipe, lambda text: read_recipe("mae2d_tiny_cpu", [text])),
        "prism": Settings(PrismRecipe, lambda text: read_recipe("prism_tiny_cpu", [text])),
        "volta3d": Settings(Volta3dRecipe, lambda text: read_recipe("volta3d_tiny_cpu", [text])),
    }


def keys(model: type[Part], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a model and of its parts, with its annotation."""
    for name, field in model.model_fields.items():
        key = f"{above}{name}"
        yield key, field.annotation
        for part in parts_of(field.annotation):
            yield from keys(part, f"{PARTS.get(key, key)}.")


def parts_of(annotation: Any) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    if get_origin(annotation) in (Union, UnionType, Annotated, dict):
        for inner in get_args(annotation):
            yield from parts_of(inner)


def plain(annotation: Any) -> Any:
    """Remove `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return plain(next(a for a in get_args(annotation) if a is not NoneType))
    return annotation


def refused(read: Callable[[str], Part], text: str) -> bool:
    """Whether an override is refused with a message for the user; any other error is raised."""
    try:
        read(text)
    except UserError as error:
        return bool(str(error))
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_of_any_key_is_a_traceback(kind: str, tmp_path: Path) -> None:
    chosen = settings(tmp_path)[kind]
    for number, (key, _) in enumerate(keys(chosen.model)):
        for value in ODD[number % 3 :: 3] + (BROKEN if number < 3 else ()):  # faster
            refused(chosen.read, f"{key}={value}")


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_finite_seeds_have_a_range_and_lists_are_not_empty(
    kind: str, tmp_path: Path
) -> None:
    accepted = []
    for key, annotation in keys(settings(tmp_path)[kind].model):
        wrong: list[str] = []
        if plain(annotation) in (int, float):
            wrong += NOT_FINITE
        if key.split(".")[-1] in ("seed", "subset_seed"):
            wrong += ["-1", str(2**32), "1.5", "x"]
        if get_origin(plain(annotation)) is tuple and key not in MAY_BE_EMPTY:
            wrong += ["[]", "[.nan]"]
        read = settings(tmp_path)[kind].read
        accepted += [f"{key}={value}" for value in wrong if not refused(read, f"{key}={value}")]
    assert not accepted


@pytest.mark.parametrize(
    ("kind", "key"),
    [("sweep", "ratios"), ("sweep", "seeds"), ("task", "ratios"), ("task", "models")],
)
def test_an_empty_list_is_refused_in_our_words(kind: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{key} is empty; allowed: at least one value"):
        settings(tmp_path)[kind].read(f"{key}=[]")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ratios=[0]",
            "ratios=[1.1]",
            "ratios=[-0.1]",
            "seeds=[-1]",
            "folds=[-1]",
            "datasets=[0]",
        ),
        *("device=tpu", "max_parallel=0", "processes=-3", "encoders.a.patch=0"),
        *("encoders.a.patch=[0, 64]", "encoders.a.batch_size=-4", "encoders.a.batch_size=0"),
        *("encoders.a.configuration=../x", "encoders.a.preset=../x", "encoders.a.trainer=a/b"),
    ],
)
def test_a_sweep_refuses_what_its_options_refuse(text: str, tmp_path: Path) -> None:
    assert refused(settings(tmp_path)["sweep"].read, text)
