"""`nnunet-fm encoders`: list the weight cards, show one, verify a weight file."""

import argparse

from nnunet_fm.cli.parser import Commands, add_encoder_option, add_group
from nnunet_fm.internal import option_types
from nnunet_fm.internal.errors import InputError


def add_command(commands: Commands) -> None:
    """Add `nnunet-fm encoders`."""
    _, encoders = add_group(commands, "encoders", "list, show, or verify a weight file")
    listing = encoders.add_parser("list", help="list the weight cards")
    listing.add_argument(
        "--markdown", action="store_true", help="published weights as the page docs/weights.md"
    )
    listing.set_defaults(function=_list)
    show = encoders.add_parser("show", help="print one card")
    show.add_argument("name", type=option_types.text)
    show.set_defaults(function=_show)
    verify = encoders.add_parser("verify", help="load a file strictly and report how")
    verify.add_argument(
        "file", type=option_types.weight_file, help="file, or hf://OWNER/NAME[@REVISION][/FILE]"
    )
    verify.add_argument(
        "--encoder",
        "--card",
        type=option_types.text,
        metavar="NAME",
        help="card or architecture (default: identified from the file)",
    )
    add_encoder_option(verify, "qkv_bias=true")
    pull = encoders.add_parser("pull", help="download the weights of a card from the Hub")
    pull.add_argument("name", type=option_types.text)
    pull.set_defaults(function=_pull)
    verify.set_defaults(function=_verify)


def _list(parsed: argparse.Namespace) -> None:
    from nnunet_fm.encoders import CARDS

    if parsed.markdown:
        from nnunet_fm.encoders.catalogue import weights_page

        print(weights_page(), end="")
        return
    print(f"{'name':34}{'architecture':22}{'licence':34}pretrained on")
    for card in CARDS.values():
        if "test" in card.name:
            continue
        data = ", ".join(card.pretrained_on[:3])
        if len(card.pretrained_on) > 3:
            data += ", ..."
        print(f"{card.name:34}{card.architecture:22}{card.licence[:32]:34}{data}")
    print(
        "\nRandom weights: the architecture's name. A network of timm: timm/NAME. "
        "A file: its path, or hf://OWNER/NAME/FILE."
    )


def _show(parsed: argparse.Namespace) -> None:
    from dataclasses import asdict

    import torch

    from nnunet_fm.encoders import build_encoder, get_card, intensity_of, orientation_of

    card = get_card(parsed.name)
    values = asdict(card)
    with torch.device("meta"):
        encoder = build_encoder(card.architecture, **card.options)
    values["intensity"] = intensity_of(encoder, card.name)
    values["orientation"] = orientation_of(encoder, card.name)
    for key, value in values.items():
        print(f"{key:16}{', '.join(value) if isinstance(value, tuple) else value}")


def _pull(parsed: argparse.Namespace) -> None:
    from nnunet_fm.encoders import get_card
    from nnunet_fm.encoders.loading.hub import fetch

    card = get_card(parsed.name)
    if not card.hub:
        raise InputError(
            f"the location of {card.name} on the Hub is not known; its source: "
            f"{card.source or 'none'}. Give a local file: --encoder FILE"
        )
    file = fetch(card.hub)
    print(f"file      {file.path}\nlicence   {card.licence}")
    print(f"type      --encoder {file.address} --card {card.name}")


def _verify(parsed: argparse.Namespace) -> None:
    from nnunet_fm.encoders import load_encoder
    from nnunet_fm.encoders.loading.identify import cards_that_fit
    from nnunet_fm.encoders.loading.load_report import describe, fingerprint
    from nnunet_fm.encoders.options import check_given_options
    from nnunet_fm.internal.arguments import parse_key_values

    options = parse_key_values(parsed.encoder_options)
    check_given_options(options)
    encoder, report = load_encoder(parsed.file, parsed.encoder, **options)
    print(describe(report))
    fitting = cards_that_fit(encoder.state_dict(), report.format)
    others = [name for name in fitting if "test" not in name]
    print(f"cards         {', '.join(others) or 'none'} (have these tensors; --card NAME)")
    print(f"fingerprint   {fingerprint(encoder)}")
