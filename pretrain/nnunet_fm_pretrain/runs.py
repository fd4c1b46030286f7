"""Starting, resuming and exporting runs: where the engine meets the methods."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist

from nnunet_fm.encoders.licence import check_licence
from nnunet_fm.internal.atomic_files import created_whole
from nnunet_fm.internal.hub_folder import new_hub_folder
from nnunet_fm.internal.locks import one_writer
from nnunet_fm.internal.threads import torch_threads
from nnunet_fm_pretrain.engine import checkpoints
from nnunet_fm_pretrain.engine.devices import make_fabric
from nnunet_fm_pretrain.engine.export import export_checkpoint
from nnunet_fm_pretrain.engine.hub_folder import WEIGHTS, describe_weights
from nnunet_fm_pretrain.engine.loop import Engine
from nnunet_fm_pretrain.engine.recipe import Recipe
from nnunet_fm_pretrain.engine.shutdown import StoppedError
from nnunet_fm_pretrain.methods.recipes import read_recipe
from nnunet_fm_pretrain.methods.registry import get_method, method_of


def pretrain(
    recipe: str | Path | Recipe,
    store: Path,
    run: Path,
    init_from: Path | None = None,
    overrides: Sequence[str] = (),
    accelerator: str = "auto",
) -> bool:
    """Train an encoder, or resume a run.

    Args:
        recipe: name of a shipped recipe, a YAML file, or a recipe.
        store: folder of `pretrain prepare`.
        run: folder of the run; if it holds a checkpoint, the run is resumed.
        init_from: run whose weights a new run starts from.
        overrides: `part.key=value` changes of a named recipe.
        accelerator: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        Whether this process is the one to report the end of the run: the first rank.

    Raises:
        FileNotFoundError, ValueError: recipe, store or run do not exist or do not fit together.
        BusyError: another process trains in this folder.
        StoppedError: SIGTERM or Ctrl-C; a checkpoint is saved.
    """
    settings = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, overrides)
    method = get_method(settings.objective.method)
    opened = method.open_store(store)
    fabric = make_fabric(settings.run, accelerator, method.find_unused_parameters)
    fabric.launch()
    lock = one_writer(run) if fabric.global_rank == 0 else nullcontext()
    with lock, torch_threads(settings.run.threads):
        engine = Engine(method, settings, opened, run, init_from, fabric)
        finished = engine.train()
    if dist.is_initialized():  # threads of the group may abort a process that exits with them
        dist.destroy_process_group()
    if not finished:
        raise StoppedError(engine.stopped_by)
    return fabric.global_rank == 0


def export(run: Path, out: Path, half: bool = False) -> dict[str, Any]:
    """Write the encoder that a run trained (BrainDINO: the teacher's).

    Args:
        run: run folder, or one of its checkpoints.
        out: `.pth` or `.safetensors`; `nnunet-fm plan --encoder FILE` takes either.
        half: write float16 tensors, half as large.

    Returns:
        The card that was written into the file.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, or another file name extension.
    """
    content = checkpoints.load(checkpoints.latest(run))
    return export_checkpoint(content, method_of(content["recipe"]), run, out, half)


def export_for_hub(
    run: Path, out: Path, half: bool = False, permitted: bool = False
) -> dict[str, Any]:
    """Write the encoder that a run trained as a folder for the Hugging Face Hub.

    Args:
        run: run folder, or one of its checkpoints.
        out: folder, which does not exist yet; its name is the model's.
        half: write float16 tensors, half as large.
        permitted: the owners of the weights that the run started from allow it, although their
            licence forbids derivatives.

    Returns:
        The card that was written into the weight file.

    Raises:
        FileNotFoundError, ValueError: no checkpoint, or a licence that forbids derivatives or
            is unknown, or a name that the Hub does not allow.
        FileExistsError: the folder is not empty.
    """
    folder = new_hub_folder(out)
    content = checkpoints.load(checkpoints.latest(run))
    check_licence(content["licence"], permitted)
    method = method_of(content["recipe"])
    with created_whole(folder) as partial:
        card = export_checkpoint(content, method, run, partial / WEIGHTS, half)
        describe_weights(partial, folder.name, card)
    return card
