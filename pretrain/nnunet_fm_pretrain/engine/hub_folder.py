"""A trained encoder as a folder for the Hugging Face Hub: tensors, configuration and model card."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.errors import ExistingFileError, InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.hub_address import SCHEME, HubAddress
from nnunet_fm_pretrain.engine.start import OWN

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORBIDDEN = re.compile(
    r"(?<![a-z])nd(?![a-z])|no[\s_-]?deriv|none found|not stated|not released", re.IGNORECASE
)
UNSTATED = "not stated yet. Before uploading, state one here, and as `license:` in the block above"
TEXT = """{data}

# {name}

{architecture}, pretrained with the method {method} of nnunet-fm ({step} of {steps} steps) on
{subjects} subjects of {datasets}.

* **Licence**: {licence}
* **Pretraining data**: keep these subjects out of every test set. SHA-256 of the list of their ids:
  `{subjects_sha256}`
* **File**: `{file}`, SHA-256 `{sha256}`
* **Use**: research. It is not a medical device, and was not evaluated for clinical use.

## How to use

```bash
pip install nnunet-fm
nnunet-fm encoders verify hf://OWNER/{name}
nnunet-fm plan -d DATASET --encoder hf://OWNER/{name}
nnunet-fm features extract subjects.csv --encoder hf://OWNER/{name}
```

In Python:

```python
from nnunet_fm.encoders import load_encoder

encoder, report = load_encoder("hf://OWNER/{name}")
```

## Recipe

```json
{recipe}
```
"""


def check_licence(licence: str, permitted: bool) -> None:
    """Check that weights may be passed on.

    Args:
        licence: note of the run's checkpoint, see `licence_of_derivative`.
        permitted: the user has the permission of the owners of the weights it started from.

    Raises:
        InputError: the licence forbids derivatives or is unknown, and there is no permission.
    """
    if FORBIDDEN.search(licence) and not permitted:
        raise InputError(
            f"these weights are {licence}. Without the owners' permission they may not be passed "
            "on; with it, type --i-have-permission"
        )


def hub_folder(out: Path) -> Path:
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


def describe_weights(folder: Path, name: str, card: Mapping[str, Any]) -> None:
    """Write `config.json` and `README.md` beside `model.safetensors`.

    Args:
        folder: of the weights.
        name: of the model.
        card: of the weight file.
    """
    write_text(folder / CONFIG, json.dumps(_config(card), indent=2) + "\n")
    digest = files_sha256([folder / WEIGHTS])
    write_text(folder / CARD, model_card(card, name, digest))


def _config(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration: the card of the weight file, with its recipe as JSON."""
    return {"library": "nnunet-fm", **card, "recipe": json.loads(card["recipe"])}


def model_card(card: Mapping[str, Any], name: str, sha256: str) -> str:
    """Return the text of `README.md`, with the metadata block of the Hub.

    Args:
        card: of the weight file.
        name: of the model.
        sha256: of the weight file.
    """
    own = card["licence"] == OWN
    terms = str(card["licence"]).rpartition("licence: ")[2]
    data = ModelCardData(
        license=None if own else "other",
        license_name=None if own else re.sub(r"[^a-z0-9.]+", "-", terms.lower())[:60].strip("-"),
        library_name="nnunet-fm",
        pipeline_tag="image-feature-extraction",
        tags=["mri", "medical", "self-supervised", str(card["method"])],
    )
    recipe = json.dumps(json.loads(card["recipe"]), indent=2)
    values = {**card, "recipe": recipe, "name": name, "file": WEIGHTS, "sha256": sha256}
    if own:
        values["licence"] = UNSTATED
    text = TEXT.format(data=f"---\n{data.to_yaml()}\n---", **values)
    return ModelCard(text).content
