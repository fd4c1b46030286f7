"""Addresses of weight files on the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`."""

import re
from dataclasses import dataclass

from nnunet_fm.internal.errors import InputError

SCHEME = "hf://"
FORM = (
    "hf://OWNER/NAME, hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE, with %2F for a slash "
    "in REVISION"
)
WORD = r"\w[\w.-]*(?<![.-])"  # of a repository, as the Hub allows it
ADDRESS = re.compile(
    rf"hf://(?P<repository>{WORD}/{WORD})(@(?P<revision>\w[\w.%-]*))?(/(?P<file>[^/].*))?",
    re.ASCII,
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
        if match is None:
            raise InputError(f"{given!r}; allowed: {FORM}")
        repository, file = match["repository"], match["file"]
        parts = file.split("/") if file else []
        if re.search(r"--|\.\.|\.git$", repository) or ".." in parts or "" in parts:
            raise InputError(f"{given!r}; allowed: {FORM}")
        revision = match["revision"]
        return cls(repository, revision and revision.replace("%2F", "/"), file)

    def __str__(self) -> str:
        """Return the address as `parse` reads it."""
        revision = f"@{self.revision.replace('/', '%2F')}" if self.revision else ""
        file = f"/{self.file}" if self.file else ""
        return f"{SCHEME}{self.repository}{revision}{file}"

    @property
    def owner(self) -> str:
        """Owner of the repository."""
        return self.repository.split("/")[0]

    @property
    def name(self) -> str:
        """Name of the repository."""
        return self.repository.split("/")[1]

    @property
    def is_pinned(self) -> bool:
        """Whether it always names the same file: with a commit."""
        return bool(self.file and self.revision and COMMIT.fullmatch(self.revision))


def is_hub_address(given: str) -> bool:
    """Whether a word is meant as an address on the Hub."""
    return given.startswith(SCHEME)
