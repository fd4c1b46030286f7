"""Where the weights of a frozen encoder come from: resolved once, recorded in plans."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_fm.encoders.cards import bundled_weights, card_of_plans, get_card, is_known
from nnunet_fm.encoders.contract import Encoder
from nnunet_fm.encoders.loading.load import load_encoder
from nnunet_fm.encoders.loading.load_report import LoadReport, tensors_sha256
from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.encoders.options import check_given_options
from nnunet_fm.encoders.random_weights import build_random, build_random_as_torch_does
from nnunet_fm.encoders.registry import ARCHITECTURES, CARDS
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.hub_address import is_hub_address
from nnunet_fm.internal.option_types import WEIGHT_SUFFIXES

DEFAULT_SEED = 0


@dataclass(frozen=True)
class EncoderSource:
    """An encoder and the origin of its weights: a file, bundled weights, or a seed.

    Attributes:
        architecture: name in the registry.
        options: numerical options that the encoder is built with.
        card: name of the weight card; of the architecture for random weights.
        sha256: hash of the tensors, see `tensors_sha256`.
        file: absolute path of the weight file, or its address on the Hub with the commit; None for
            bundled and random weights.
        seed: of random weights; None for trained ones.
        encoder: the loaded module, while it is in use; not part of the identity.
        report: of the loader, if the weights came from a file.

    Example:
        >>> source = EncoderSource.resolve("synth_vitt16")
        >>> source.card, source.origin
        ('synth_vitt16.v1', 'the bundled weights')
        >>> EncoderSource.from_plans(source.to_plans()) == source
        True
    """

    architecture: str
    options: dict[str, Any]
    card: str
    sha256: str
    file: str | None = None
    seed: int | None = None
    encoder: Encoder | None = field(default=None, compare=False, repr=False)
    report: LoadReport | None = field(default=None, compare=False, repr=False)

    @classmethod
    def resolve(
        cls,
        given: str,
        card: str | None = None,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
        taps: tuple[int, ...] | None = None,
    ) -> "EncoderSource":
        """Resolve what a user gave as `--encoder`, and load it.

        Args:
            given: path of a weight file, or its address on the Hub (`hf://OWNER/NAME/FILE`), name
                of bundled weights, or name of an architecture for random weights.
            card: weight card of the file; found from the file if None.
            seed: of random weights; 0 if None. Not allowed for other weights.
            options: replace the card's, e.g. `{"qkv_bias": True}`.
            taps: blocks whose features are returned; the architecture's default if None.

        Raises:
            MissingFileError, CheckpointError, InputError: as `load_encoder`, or arguments that do
                not go together.
        """
        check_given_options(options or {})
        if is_path(given):
            return cls._trained(given, card, seed, options, taps)
        if card is not None:
            raise InputError(
                f"--card {card} is for a weight file, and {given} is not one; remove --card"
            )
        if bundled_weights(given):
            return cls._trained(given, card, seed, options, taps)
        return cls._random(given, DEFAULT_SEED if seed is None else seed, options, taps)

    @classmethod
    def _trained(
        cls,
        given: str,
        card: str | None,
        seed: int | None,
        options: dict[str, Any] | None,
        taps: tuple[int, ...] | None,
    ) -> "EncoderSource":
        if seed is not None:
            raise InputError(f"a seed was given, but {given} names trained weights; remove --seed")
        encoder, report = load_encoder(given, card, taps=taps, **(options or {}))
        bundled = get_card(report.card).shipped is not None
        return cls(
            architecture=report.architecture,
            options=report.options,
            card=report.card,
            sha256=report.sha256,
            file=None if bundled else report.file,
            encoder=encoder,
            report=report,
        )

    @classmethod
    def _random(
        cls,
        given: str,
        seed: int,
        options: dict[str, Any] | None,
        taps: tuple[int, ...] | None,
    ) -> "EncoderSource":
        bundled = [card.name for card in CARDS.values() if card.shipped]
        card = get_card(given, offered=[*ARCHITECTURES, *bundled])
        if card.source:
            raise InputError(
                f"{given} names published weights, which nnunet-fm does not ship: {card.source} "
                f"({card.licence}). Give the file: --encoder {card.hub or 'FILE'} --card "
                f"{card.name}. "
                f"For random weights: --encoder {card.architecture}"
            )
        options = {**card.options, **(options or {})}
        encoder = build_random(card.architecture, seed, taps, **options)
        encoder.requires_grad_(False).eval()
        sha256 = tensors_sha256(encoder.state_dict())
        return cls(card.architecture, options, card.name, sha256, seed=seed, encoder=encoder)

    def to_plans(self) -> dict[str, Any]:
        """Return the network arguments that name the encoder, as plans hold them (JSON)."""
        source: dict[str, Any] = {}
        if self.file is not None:
            source["file"] = self.file
        if self.seed is not None:
            source["seed"] = self.seed
        source |= {"card": self.card, "sha256": self.sha256}
        return {
            "encoder": self.architecture,
            "encoder_options": self.options,
            "encoder_source": source,
        }

    @classmethod
    def from_plans(cls, arguments: dict[str, Any]) -> "EncoderSource | None":
        """Read the source from network arguments in plans; None if they name no weights."""
        source = arguments.get("encoder_source")
        if not source:
            return None
        if "sha256" not in source:
            raise InputError(
                f"encoder_source {source} in the plans has no sha256; rerun `nnunet-fm plan`"
            )
        return cls(
            architecture=arguments.get("encoder", ""),
            options=dict(arguments.get("encoder_options") or {}),
            card=source.get("card", ""),
            sha256=source["sha256"],
            file=source.get("file"),
            seed=source.get("seed"),
        )

    def load(self) -> Encoder:
        """Return the encoder, loading it unless it is loaded already.

        Raises:
            MissingFileError: the file is missing.
            CheckpointError: the file, or the seed on this processor, now gives other weights.
        """
        if self.encoder is not None:
            return self.encoder
        return self._draw(self.seed) if self.seed is not None else self._load_file()[0]

    def read_report(self) -> LoadReport | None:
        """Return the loader's report, loading the file again if necessary; None for a seed.

        Raises:
            MissingFileError, CheckpointError: as `load`.
        """
        if self.report is not None or self.seed is not None:
            return self.report
        return self._load_file()[1]

    def _draw(self, seed: int) -> Encoder:
        """Build the encoder of random weights, of version 0.1 too, whose draws torch rounded."""
        for build in (build_random, build_random_as_torch_does):
            encoder = build(self.architecture, seed, **self.options)
            if tensors_sha256(encoder.state_dict()) == self.sha256:
                return encoder
        raise CheckpointError(
            f"the plans were written for {self.origin} with tensor hash {self.sha256[:12]}…, which "
            "this version does not draw on this processor (nnunet-fm 0.1 rounded random weights "
            "as the processor does). Use the processor on which the plans were written, or rerun "
            "`nnunet-fm plan` under another name (-o) and train again"
        )

    def same_draw(self, other: "EncoderSource") -> bool:
        """Whether both are random weights of one seed, equal up to rounding by version 0.1.

        True only if the weights of `other` can be drawn on this processor.
        """
        if self.seed is None or replace(self, sha256=other.sha256) != other:
            return False
        try:
            other.load()
        except CheckpointError:
            return False
        return True

    def _load_file(self) -> tuple[Encoder, LoadReport]:
        try:
            card = card_of_plans(self.card)
            encoder, report = load_encoder(self.file or card, card, **self.options)
        except MissingFileError:
            if self.file and is_hub_address(self.file):
                raise  # says what the Hub answered
            raise MissingFileError(
                f"encoder file {self.file!r} named by the plans is missing (tensor hash "
                f"{self.sha256[:12]}…). "
                "Restore it, or rerun `nnunet-fm plan` with the file's new path"
            ) from None
        if report.sha256 != self.sha256:
            raise CheckpointError(
                f"the encoder changed: {self.origin} now has tensor hash {report.sha256[:12]}…, "
                f"the plans were written for {self.sha256[:12]}…. Restore the previous file, or "
                "rerun `nnunet-fm plan` and train again"
            )
        return encoder, report

    @property
    def origin(self) -> str:
        """Where the weights come from, in words."""
        if self.seed is not None:
            return f"RANDOM weights, seed {self.seed}"
        return self.file or "the bundled weights"


def is_path(given: str) -> bool:
    """Whether a file was given, here or on the Hub, or a folder, unless an encoder is so called."""
    if is_hub_address(given):
        return True
    path = Path(given)
    if path.suffix in WEIGHT_SUFFIXES or path.is_file():
        return True
    return path.is_dir() and not is_known(given)
