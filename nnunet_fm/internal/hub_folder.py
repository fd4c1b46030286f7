"""A folder for the Hugging Face Hub: its name, its file names, and its model card."""

import shlex
from pathlib import Path
from typing import Any

from nnunet_fm.internal.errors import ExistingFileError, InputError
from nnunet_fm.internal.hub_address import SCHEME, HubAddress

CONFIG, CARD = "config.json", "README.md"


def new_hub_folder(out: Path) -> Path:
    """Return the absolute path of a new folder, whose name is the model's.

    Raises:
        FileExistsError: the folder is not empty.
        InputError: a name that the Hub does not allow.
    """
    out = out.resolve()
    try:
        HubAddress.parse(f"{SCHEME}OWNER/{out.name}")
    except InputError:
        raise InputError(
            f"{out.name!r} is no name of a model on the Hub; allowed: letters, digits, and . _ - "
            "between them"
        ) from None
    if out.exists() and any(out.iterdir()):
        raise ExistingFileError(f"{out} is not empty; give a folder that does not exist yet")
    return out


def upload_advice(folder: Path) -> str:
    """Say what is left to do with a folder that was written."""
    words = f"hf upload OWNER/{folder.resolve().name} {shlex.quote(str(folder))}"
    return f"Next: read and complete its README.md, then type: {words}"


def model_card(text: str, **metadata: Any) -> str:
    """Return the content of `README.md`: the metadata block of the Hub, then the text.

    Args:
        text: Markdown, without the block.
        **metadata: arguments of `huggingface_hub.ModelCardData`.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(library_name="nnunet-fm", **metadata)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}").content
