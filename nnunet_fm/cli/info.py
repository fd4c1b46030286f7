"""`nnunet-fm info`: parameters and operations of a network."""

import argparse
import json

from nnunet_fm.cli.parser import Commands, add_card, add_encoder_option
from nnunet_fm.internal import option_types
from nnunet_fm.internal.arguments import parse_key_values


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm info`."""
    info = commands.add_parser("info", help="parameters and operations of a network")
    info.add_argument("--encoder", type=option_types.encoder, required=True, metavar="NAME|FILE")
    add_card(info)
    add_encoder_option(info, "qkv_bias=True")
    info.add_argument(
        "--channels", type=option_types.channels, default=4, help="input channels (default: 4)"
    )
    info.add_argument(
        "--classes", type=option_types.channels, default=3, help="output channels (default: 3)"
    )
    info.add_argument(
        "--patch",
        type=option_types.voxels,
        nargs=2,
        default=(256, 256),
        metavar=("HEIGHT", "WIDTH"),
        help="pixels (default: 256 256)",
    )
    info.add_argument(
        "--decoder", type=option_types.text, default="detail", help="of slices (default: detail)"
    )
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(function=_info)


def _info(parsed: argparse.Namespace) -> None:
    from nnunet_fm.network.summary import network_info

    counts = network_info(
        parsed.encoder,
        parsed.channels,
        parsed.classes,
        tuple(parsed.patch),
        parsed.decoder,
        parsed.card,
        parse_key_values(parsed.encoder_options),
    )
    if parsed.json:
        print(json.dumps(counts))
        return
    for key, value in counts.items():
        print(f"{key:16}{value:,}" if isinstance(value, int) else f"{key:16}{value}")
    print(f"{'frozen share':16}{100 * counts['encoder'] / counts['total']:.2f} %")
