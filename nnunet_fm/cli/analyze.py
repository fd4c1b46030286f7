"""`nnunet-fm analyze`: cka, similarity."""

import argparse
from pathlib import Path

from nnunet_fm.cli.features import DEFAULT_CACHE
from nnunet_fm.internal.arguments import block_numbers
from nnunet_fm.internal.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands of `nnunet-fm analyze`."""
    cka = commands.add_parser(
        "cka", help="alignment of two encoders' cached features, layer by layer"
    )
    cka.add_argument("table", type=Path, help="as it was given to `features extract`")
    cka.add_argument(
        "--first", required=True, metavar="ENCODER", help="name or hash: `features list`"
    )
    cka.add_argument("--second", required=True, metavar="ENCODER")
    cka.add_argument(
        "--layers", type=block_numbers, metavar="2,6,11", help="blocks; all that the cache keeps"
    )
    cka.add_argument("--cache", type=Path, default=DEFAULT_CACHE, metavar="FOLDER")
    cka.add_argument("-o", type=Path, default=Path("cka"), metavar="FOLDER")
    cka.set_defaults(function=_cka)
    similar = commands.add_parser(
        "similarity", help="similarity of a slice's patches to points, encoders side by side"
    )
    similar.add_argument("volume", type=Path, help="NIfTI file or DICOM folder")
    similar.add_argument("--encoder", required=True, nargs="+", metavar="NAME|FILE")
    similar.add_argument(
        "--slice", type=int, required=True, help="axial slice of the preprocessed volume, from 0"
    )
    similar.add_argument(
        "--points",
        type=_point,
        required=True,
        nargs="+",
        metavar="ROW,COLUMN",
        help="on that slice",
    )
    similar.add_argument(
        "--shape", type=int, nargs=3, default=(128, 256, 256), metavar=("Z", "Y", "X")
    )
    similar.add_argument(
        "--strip", default="none", help="none, hd-bet, deepbet or command:PROGRAM {in} {out}"
    )
    similar.add_argument(
        "--seed", type=int, help="of random weights, where NAME has no file; default 0"
    )
    similar.add_argument("-o", type=Path, default=Path("similarity.png"), metavar="PNG")
    similar.set_defaults(function=_similarity)


def _point(text: str) -> tuple[int, int]:
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no point; allowed: ROW,COLUMN, e.g. 120,96"
        ) from None
    return row, column


def _cka(parsed: argparse.Namespace) -> None:
    from nnunet_fm.features import FeatureCache, read_table
    from nnunet_fm.features.cka import align
    from nnunet_fm.features.figures import draw_alignment
    from nnunet_fm.internal.files import write_csv

    found = align(
        FeatureCache(parsed.cache),
        read_table(parsed.table),
        parsed.first,
        parsed.second,
        parsed.layers,
    )
    print(f"{found[0].first} (down) and {found[0].second}, {found[0].n} subjects")
    print(f"{'blocks':>8}{'biased':>9}{'debiased':>10}{'95 %':>18}{'standardised':>14}")
    for a in found:
        blocks, limits = f"{a.first_layer}, {a.second_layer}", f"{a.low:.3f} to {a.high:.3f}"
        print(f"{blocks:>8}{a.cka:9.3f}{a.debiased:10.3f}{limits:>18}{a.standardised:14.3f}")
    write_csv(found, parsed.o / "cka.csv")
    draw_alignment(found, parsed.o / "cka.png")
    print(f"wrote {parsed.o}")


def _similarity(parsed: argparse.Namespace) -> None:
    from nnunet_fm.data.preprocessing import preprocess_volume
    from nnunet_fm.data.skull_stripping import find_stripper
    from nnunet_fm.data.volumes import read_volume
    from nnunet_fm.features.extraction import open_encoder
    from nnunet_fm.features.figures import draw_similarity
    from nnunet_fm.features.patch_similarity import slice_similarities

    if not 0 <= parsed.slice < parsed.shape[0]:
        raise InputError(f"slice {parsed.slice}; allowed: 0 to {parsed.shape[0] - 1} (--shape)")
    volume, image = read_volume(parsed.volume)
    brain = find_stripper(parsed.strip)(volume, image, None)
    shown = preprocess_volume(volume, brain, tuple(parsed.shape))[parsed.slice]
    maps = {}
    for given in parsed.encoder:
        seed = None if Path(given).is_file() else parsed.seed
        encoder, recipe = open_encoder(given, seed=seed)
        name = recipe.name if recipe.name not in maps else f"{recipe.name} ({recipe.encoder[:6]})"
        maps[name] = slice_similarities(encoder, shown, parsed.points)
    draw_similarity(shown, parsed.points, maps, parsed.o)
    print(f"wrote {parsed.o}")
