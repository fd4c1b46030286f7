"""`nnunet-fm analyse`: cka, similarity."""

import argparse
from pathlib import Path

from nnunet_fm.cli.features import DEFAULT_CACHE
from nnunet_fm.cli.parser import (
    Commands,
    add_card,
    add_encoder_option,
    add_prefer,
    add_skull_strip,
    add_weights_seed,
)
from nnunet_fm.internal import option_types


def add_commands(commands: Commands) -> None:
    """Add the sub-commands of `nnunet-fm analyse`."""
    _add_cka(commands)
    _add_similarity(commands)


def _add_cka(commands: Commands) -> None:
    cka = commands.add_parser(
        "cka", help="alignment of two encoders' cached features, layer by layer"
    )
    cka.add_argument(
        "table",
        type=option_types.existing_path,
        help="table that was given to `features extract`",
    )
    add_prefer(cka)
    cka.add_argument(
        "--first",
        type=option_types.text,
        required=True,
        metavar="ENCODER",
        help="name or hash (see `features list`)",
    )
    cka.add_argument("--second", type=option_types.text, required=True, metavar="ENCODER")
    cka.add_argument(
        "--layers",
        type=option_types.block_numbers,
        metavar="2,6,11",
        help="blocks to compare (default: all in the cache)",
    )
    cka.add_argument(
        "--cache", type=option_types.output_folder, default=DEFAULT_CACHE, metavar="FOLDER"
    )
    cka.add_argument("-o", type=option_types.output_folder, default=Path("cka"), metavar="FOLDER")
    cka.set_defaults(function=_cka)


def _add_similarity(commands: Commands) -> None:
    similarity = commands.add_parser(
        "similarity", help="similarity of a slice's patches to points, encoders side by side"
    )
    similarity.add_argument(
        "volume", type=option_types.existing_path, help="NIfTI file or DICOM folder"
    )
    similarity.add_argument(
        "--encoder", type=option_types.encoder, required=True, nargs="+", metavar="NAME|FILE"
    )
    add_card(similarity)
    add_encoder_option(similarity, "qkv_bias=true")
    similarity.add_argument(
        "--slice",
        type=option_types.non_negative_int,
        required=True,
        help="axial slice of the preprocessed volume, from 0",
    )
    similarity.add_argument(
        "--points",
        type=option_types.point,
        required=True,
        nargs="+",
        metavar="ROW,COLUMN",
        help="reference points on that slice",
    )
    similarity.add_argument(
        "--shape",
        type=option_types.voxels,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxels of the preprocessed volume (default: 128 256 256)",
    )
    add_skull_strip(
        similarity, "none, hd-bet, deepbet or command:PROGRAM {in} {out} (default: none)"
    )
    add_weights_seed(similarity)
    similarity.add_argument(
        "-o", type=option_types.figure_file, default=Path("similarity.png"), metavar="PNG"
    )
    similarity.set_defaults(function=_similarity)


def _cka(parsed: argparse.Namespace) -> None:
    from nnunet_fm.features import FeatureCache, read_table
    from nnunet_fm.features.cka import align
    from nnunet_fm.features.figures import draw_alignment
    from nnunet_fm.internal.atomic_files import write_csv
    from nnunet_fm.internal.result_sets import replaced_together

    cache = FeatureCache(parsed.cache)
    table = read_table(parsed.table, prefer=parsed.prefer)
    alignments = align(cache, table, parsed.first, parsed.second, parsed.layers)
    first = alignments[0]
    print(f"{first.first} (down) and {first.second}, {first.n} subjects")
    print(f"{'blocks':>8}{'biased':>9}{'debiased':>10}{'95 %':>18}{'standardised':>14}")
    for a in alignments:
        blocks = f"{a.first_layer}, {a.second_layer}"
        limits = f"{a.low:.3f} to {a.high:.3f}"
        print(f"{blocks:>8}{a.cka:9.3f}{a.debiased:10.3f}{limits:>18}{a.standardised:14.3f}")
    with replaced_together(parsed.o, "cka") as folder:
        write_csv(alignments, folder / "cka.csv")
        draw_alignment(alignments, folder / "cka.png")
    print(f"wrote {parsed.o}")


def _similarity(parsed: argparse.Namespace) -> None:
    from nnunet_fm.features.figures import draw_similarity
    from nnunet_fm.features.opening import SHAPE
    from nnunet_fm.features.patch_similarity import volume_similarities
    from nnunet_fm.internal.arguments import parse_key_values

    image, maps = volume_similarities(
        parsed.volume,
        parsed.encoder,
        parsed.slice,
        parsed.points,
        tuple(parsed.shape or SHAPE),
        parsed.skull_strip,
        parsed.seed,
        parsed.card,
        parse_key_values(parsed.encoder_options),
    )
    draw_similarity(image, parsed.points, maps, parsed.o)
    print(f"wrote {parsed.o}")
