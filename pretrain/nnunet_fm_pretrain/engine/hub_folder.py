"""A trained encoder as a folder for the Hugging Face Hub: tensors, configuration and model card."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from nnunet_fm.internal.atomic_files import created_whole, write_text
from nnunet_fm.internal.errors import ExistingFileError, InputError
from nnunet_fm.internal.files import files_sha256
from nnunet_fm_pretrain.engine.export import export_checkpoint
from nnunet_fm_pretrain.engine.method import Method

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
NO_DERIVATIVES = re.compile(r"\bND\b|no derivatives", re.IGNORECASE)
TEXT = """{data}

# {name}

{architecture}, pretrained with the method {method} of nnunet-fm ({step} of {steps} steps) on
{subjects} subjects of {datasets}.

* **Licence**: {licence}
* **Pretraining data**: keep these subjects out of every test set. SHA-256 of the list of their ids:
  `{subjects_sha256}`
* **File**: `{file}`, SHA-256 `{sha256}`
* **Use**: research. It is no medical device, and was not evaluated for clinical use.

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
        InputError: the licence forbids derivatives, and there is no permission.
    """
    if NO_DERIVATIVES.search(licence) and not permitted:
        raise InputError(
            f"these weights are a {licence}, which forbids passing on derivatives; with the "
            "owners' permission, type --i-have-permission"
        )


def write_hub_folder(
    content: dict[str, Any], method: Method, run: Path, out: Path, half: bool = False
) -> dict[str, Any]:
    """Write the encoder of a checkpoint as `model.safetensors`, `config.json` and `README.md`.

    Args:
        content: of the checkpoint.
        method: that trained it.
        run: folder or file that the checkpoint was read from.
        out: folder, which does not exist yet or is empty; its name is the model's.
        half: write float16 tensors, half as large.

    Returns:
        The card that was written into the weight file.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: an encoder that the loader refuses.
    """
    if out.exists() and any(out.iterdir()):
        raise ExistingFileError(f"{out} is not empty; give a folder that does not exist yet")
    with created_whole(out) as partial:
        partial.mkdir(exist_ok=True)
        card = export_checkpoint(content, method, run, partial / WEIGHTS, half)
        write_text(partial / CONFIG, json.dumps(_config(card), indent=2) + "\n")
        digest = files_sha256([partial / WEIGHTS])
        write_text(partial / CARD, model_card(card, out.name, digest))
    return card


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
    data = ModelCardData(
        license="other",
        license_name=re.sub(r"[^a-z0-9]+", "-", str(card["licence"]).lower()).strip("-")[:80],
        library_name="nnunet-fm",
        pipeline_tag="image-feature-extraction",
        tags=["mri", "medical", "self-supervised", str(card["method"])],
    )
    recipe = json.dumps(json.loads(card["recipe"]), indent=2)
    values = {**card, "recipe": recipe, "name": name, "file": WEIGHTS, "sha256": sha256}
    text = TEXT.format(data=f"---\n{data.to_yaml()}\n---", **values)
    return ModelCard(text).content
