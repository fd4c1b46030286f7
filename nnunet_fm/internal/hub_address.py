"""Addresses of weight files on the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`."""

import re
from dataclasses import dataclass

from nnunet_fm.internal.errors import InputError

SCHEME = "hf://"
FORM = "hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE"
WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
ADDRESS = re.compile(
    rf"hf://(?P<repository>{WORD}/{WORD})(@(?P<revision>[A-Za-z0-9][A-Za-z0-9._-]*))?"
    r"(/(?P<file>[^/@\s][^@\s]*))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """A weight file on the Hub, or the only one of a repository.

    Attributes:
        repository: `OWNER/NAME`.
        revision: branch, tag or commit; None for the default branch.
        file: path in the repository; None for its only weight file.

    Example:
        >>> HubAddress.parse("hf://lab/brain@v1/weights/model.safetensors").file
        'weights/model.safetensors'
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, given: str) -> "HubAddress":
        """Read an address.

        Raises:
            InputError: it has another form.
        """
        match = ADDRESS.fullmatch(given)
        if match is None or ".." in given:
            raise InputError(f"{given!r}; allowed: {FORM}")
        return cls(match["repository"], match["revision"], match["file"])

    def __str__(self) -> str:
        """Return the address as `parse` reads it."""
        revision = f"@{self.revision}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        return f"{SCHEME}{self.repository}{revision}{file}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names one file for ever: with a commit."""
        return bool(self.file and self.revision and COMMIT.fullmatch(self.revision))


def is_hub_address(given: str) -> bool:
    """Whether a word is meant as an address on the Hub."""
    return given.startswith(SCHEME)
