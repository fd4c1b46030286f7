"""The decoder of a configuration: its choice and its options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_fm.encoders import Encoder
from nnunet_fm.internal.errors import InputError
from nnunet_fm.network.decoders import Decoder, find_decoder
from nnunet_fm.network.decoders.registry import check_decoder_options, check_tokens, fits
from nnunet_fm.network.fusion import SEPARATE
from nnunet_fm.network.input_size import doublings_of
from nnunet_fm.nnunet.plan_options import ConfigurationOptions

DETAIL = "detail"
UNETR_STRIDE = 16  # voxels per token that UNETR's decoder needs


@dataclass(frozen=True)
class PlannedDecoder:
    """The decoder that a configuration is planned with.

    Attributes:
        name: as `--decoder` takes it.
        form: its class.
        encoder: whose features it decodes.
        options: of the planner.
    """

    name: str
    form: type[Decoder]
    encoder: Encoder
    options: ConfigurationOptions

    @classmethod
    def choose(
        cls, encoder: Encoder, architecture: str, preferred: str, options: ConfigurationOptions
    ) -> "PlannedDecoder":
        """Choose what the user asks for, or the preset's where it fits, or else what fits.

        Raises:
            ValueError: an unknown decoder, or one that does not fit the encoder.
        """
        name = options.decoder or _fitting_decoder(encoder, preferred)
        return cls(name, find_decoder(name, encoder, architecture), encoder, options)

    @property
    def sees_image(self) -> bool:
        """Whether the decoder uses the image beside the features."""
        return self.form.sees_image(self.encoder.feature_info)

    @property
    def stages(self) -> int:
        """Number of doublings from the tokens to the image.

        Raises:
            ValueError: an impossible scale of the encoder.
        """
        return doublings_of(self.encoder, self.options.encoder_scale or 1)

    def arguments(self, sides: Sequence[int]) -> tuple[dict[str, Any], str]:
        """Return the network's arguments for this decoder, and what to report to the user.

        Plans of decoders without options stay as version 0.1 wrote them.

        Args:
            sides: of the patch, in pixels or voxels.

        Raises:
            ValueError: an unknown option, one that does not fit the patch, or no tokens for a
                decoder that needs them.
        """
        given = self._given_options()
        check_decoder_options(self.name, self.form, given)
        chosen = self.form.plan_options(given, sides, self.stages)
        report = "".join(f", {key} {value}" for key, value in chosen.items())
        arguments: dict[str, Any] = {"decoder": self.name}
        if chosen:
            arguments["decoder_options"] = chosen
        if self.options.tokens == "off":
            self._check_control()
            arguments["tokens"] = "off"
            report += ", TOKENS OFF: a control, the encoder is not used"
        return arguments, report

    def _given_options(self) -> dict[str, Any]:
        given = dict(self.options.decoder_options)
        width = self.options.detail_width
        if width is None:
            return given
        if self.name != DETAIL:
            raise InputError(
                f"--detail-width with decoder {self.name}; allowed: --decoder {DETAIL}, or no width"
            )
        if given.get("width", width) != width:
            raise InputError(
                f"--detail-width {width} and --decoder-option width={given['width']}; allowed: "
                "one of them"
            )
        return given | {"width": width}

    def _check_control(self) -> None:
        """Refuse decoders that need tokens, and a fusion that would not learn without them."""
        check_tokens(self.name, self.form, tokens=False)
        if self.options.fusion not in (None, "fixed", SEPARATE):
            raise InputError(
                f"--tokens off with --fusion {self.options.fusion}; without tokens no fusion "
                "learns: omit it"
            )


def _fitting_decoder(encoder: Encoder, preferred: str) -> str:
    """Choose the preset's decoder where it fits the encoder, else the one that does."""
    if encoder.kind == "pyramid":
        return preferred if fits(preferred, encoder) else "pyramid"
    if preferred == "unetr" and encoder.input_spec.divisor != UNETR_STRIDE:
        return "primus3d"
    return preferred
