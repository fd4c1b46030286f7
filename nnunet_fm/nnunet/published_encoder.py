"""The encoder of a model that is published: its licence, and what it was pretrained on."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_fm.encoders import EncoderSource, LoadReport, WeightCard, get_card
from nnunet_fm.encoders.cards import card_of_plans
from nnunet_fm.encoders.licence import derivative_of, stated_licence
from nnunet_fm.encoders.weight_card import OWN
from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.hub_address import is_hub_address


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder, as the card of a model describes it.

    Attributes:
        source: as the plans name it.
        licence: of its weights; empty for random ones.
        elsewhere: whoever reads the plans gets the same weights, bundled or from the Hub, so that
            the model's folder does not hold them.
        about: the card of its weight file, see `write_encoder`.
        fine_tuned: the training changed it, so that each fold has its own.
    """

    source: EncoderSource
    licence: str
    elsewhere: bool
    about: dict[str, Any] = field(default_factory=dict)
    fine_tuned: bool = False

    @classmethod
    def find(cls, source: EncoderSource) -> "PublishedEncoder":
        """Read the licence and the card from the encoder's file.

        Where the file is missing, a published weight card says the licence.

        Raises:
            CheckpointError: the file has changed since the plans were written.
        """
        card = get_card(card_of_plans(source.card))
        try:
            report = source.read_report()
        except MissingFileError:
            report = None
        licence = "" if source.seed is not None else _licence(source, card, report)
        about = {"card": card.name, "architecture": source.architecture, "options": source.options}
        carried = report.about if report else {}
        return cls(
            source=source,
            licence=licence,
            elsewhere=card.shipped is not None or is_hub_address(source.file or ""),
            about={**about, "licence": licence or OWN, **carried},
        )

    def changed_by_training(self) -> "PublishedEncoder":
        """Return the encoder of a fine-tuning, whose weights are derivatives."""
        if self.fine_tuned:
            return self
        licence = self.licence and derivative_of(self.source.card, self.licence)
        return replace(self, licence=licence, fine_tuned=True)

    @property
    def note(self) -> str:
        """The licence note that `check_licence` takes."""
        if self.fine_tuned:
            return self.licence
        return f"those of {self.source.card}, whose licence is: {self.licence}"

    @property
    def place(self) -> str:
        """Where the weights are, in words; empty if in a file of the folder."""
        if self.fine_tuned:
            return "in the file of each fold"
        return self.source.origin if self.elsewhere else ""

    @property
    def pretrained_on(self) -> list[str]:
        """Datasets of the pretraining, of the weight card or of the file; empty if not known."""
        known = get_card(card_of_plans(self.source.card)).pretrained_on
        carried = str(self.about.get("datasets", "")).split(", ")
        return [*known] or [name for name in carried if name]


def _licence(source: EncoderSource, card: WeightCard, report: LoadReport | None) -> str:
    if report is not None:
        return stated_licence(report)
    if card.licence != OWN:
        return card.licence
    return f"not stated, as its file {Path(source.file or '').name} is missing"
