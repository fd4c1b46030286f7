"""Vectors of names from a language model of `transformers` (extra `[text]`), made once."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from nnunet_fm.internal.atomic_files import replaced_atomically
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import reason_of, some

BIOBERT = "dmis-lab/biobert-v1.1"  # of the paper


def embed_names(model: str, texts: Mapping[str, str], file: Path) -> int:
    """Write a table of names for `text.source=table`.

    A vector is the mean of the model's last hidden states over the tokens of the text, as in the
    authors' code.

    Args:
        model: name on the Hugging Face hub, or a folder that `transformers` reads.
        texts: by name, e.g. `{"T1": "T1-weighted MRI"}`.
        file: `.safetensors` to write; the model and the texts are in its metadata.

    Returns:
        The width of the vectors.

    Raises:
        InputError: `transformers` is not installed, or it cannot read the model.
    """
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise InputError("transformers is not installed; pip install 'nnunet-fm[text]'") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network, report = AutoModel.from_pretrained(model, output_loading_info=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"transformers cannot read the model {model!r} ({reason_of(error)}); give a "
            f"name on the Hugging Face hub, e.g. {BIOBERT}, or a folder with its files"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(
            f"the model {model!r} lacks {some(missing)}, which would be random; give the model "
            f"whose files these are, e.g. {BIOBERT}"
        )
    network.eval()
    vectors: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, text in texts.items():
            tokens = tokenizer(text, return_tensors="pt")
            vectors[name] = network(**tokens).last_hidden_state[0].mean(0).float().contiguous()
    metadata = {"model": model, "texts": json.dumps(dict(texts))}
    with replaced_atomically(file) as unfinished:
        save_file(vectors, unfinished, metadata)
    return len(next(iter(vectors.values())))
