"""`nnunet-fm pretrain embed-modalities`."""

import argparse
import shlex

from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.cli.parser import Commands


def add_command(commands: Commands) -> None:
    """Add the command."""
    embed = commands.add_parser(
        "embed-modalities",
        help="make a table of the names of sequences with a language model, for brainfm",
    )
    add = embed.add_argument
    add(
        "names",
        type=option_types.text,
        nargs="+",
        metavar="NAME[=TEXT]",
        help="names as the store has them, e.g. T1='T1-weighted MRI'; the text is the name if "
        "there is none",
    )
    add(
        "--model",
        type=option_types.text,
        default="dmis-lab/biobert-v1.1",
        help="name on the Hugging Face hub, or a folder (default: BioBERT, as in the paper)",
    )
    add("-o", type=option_types.safetensors_file, required=True, metavar="FILE.safetensors")
    embed.set_defaults(function=_embed)


def _embed(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.methods.brainfm.language_model import embed_names

    texts: dict[str, str] = {}
    for given in parsed.names:
        name, _, text = given.partition("=")
        if not name or name in texts:
            raise InputError(f"names {' '.join(parsed.names)}; allowed: each once, NAME=TEXT")
        texts[name] = text or name
    width = embed_names(parsed.model, texts, parsed.o)
    print(f"{len(texts)} vectors of {width} numbers: {parsed.o}")
    keys = ["text.source=table", f"text.file={parsed.o}", f"text.width={width}"]
    keys.append(f"sessions.names=[{','.join(texts)}]")
    words = ["nnunet-fm", "pretrain", "run", "brainfm_vitb16", "--store", "STORE", "-o", "RUN"]
    print(f"Next: {shlex.join([*words, *keys])}")
