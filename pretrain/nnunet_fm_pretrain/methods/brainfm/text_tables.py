"""Files of the vectors of names, e.g. made once from a language model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from nnunet_fm.encoders.loading.read import read_tensors
from nnunet_fm.encoders.modality_text import normalised
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown


def read_text_table(file: Path, names: Sequence[str], width: int) -> Float[np.ndarray, "k w"]:
    """Read the vectors of names from a `.safetensors` file, centred and scaled over these names.

    Args:
        file: holds one vector per name.
        names: in the order of the rows.
        width: of a vector.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a name that it lacks, or vectors of another width or with
            values that are not finite.
    """
    if file.suffix != ".safetensors":
        raise InputError(f"text.file {file}; allowed: a .safetensors with one vector per name")
    table = read_tensors(file)
    for name in names:
        if name not in table:
            raise InputError(unknown("modality", name, table, f"These are in {file}."))
        if tuple(table[name].shape) != (width,):
            raise InputError(
                f"{name} in {file} has the shape {tuple(table[name].shape)}; allowed: vectors of "
                f"{width} numbers, or give text.width"
            )
        if not table[name].isfinite().all():
            raise InputError(f"{name} in {file} has values that are not finite; make it again")
    return normalised(np.stack([table[name].double().numpy() for name in names]))
