"""A trained encoder as a folder for the Hugging Face Hub: tensors, configuration and model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_fm.encoders.licence import UNSTATED, hub_licence
from nnunet_fm.encoders.weight_card import OWN
from nnunet_fm.internal.atomic_files import write_text
from nnunet_fm.internal.files import files_sha256
from nnunet_fm.internal.hub_folder import CARD, CONFIG, model_card

WEIGHTS = "model.safetensors"
TEXT = """# {name}

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


def describe_weights(folder: Path, name: str, card: Mapping[str, Any]) -> None:
    """Write `config.json` and `README.md` beside `model.safetensors`.

    Args:
        folder: of the weights.
        name: of the model.
        card: of the weight file.
    """
    write_text(folder / CONFIG, json.dumps(_config(card), indent=2) + "\n")
    digest = files_sha256([folder / WEIGHTS])
    write_text(folder / CARD, encoder_card(card, name, digest))


def _config(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration: the card of the weight file, with its recipe as JSON."""
    return {"library": "nnunet-fm", **card, "recipe": json.loads(card["recipe"])}


def encoder_card(card: Mapping[str, Any], name: str, sha256: str) -> str:
    """Return the text of `README.md`, with the metadata block of the Hub.

    Args:
        card: of the weight file.
        name: of the model.
        sha256: of the weight file.
    """
    recipe = json.dumps(json.loads(card["recipe"]), indent=2)
    values = {**card, "recipe": recipe, "name": name, "file": WEIGHTS, "sha256": sha256}
    if card["licence"] == OWN:
        values["licence"] = UNSTATED
    return model_card(
        TEXT.format(**values),
        pipeline_tag="image-feature-extraction",
        tags=["mri", "medical", "self-supervised", str(card["method"])],
        **hub_licence(str(card["licence"])),
    )
