"""Types of command-line options: each says what is allowed, and refuses everything else.

They are given to argparse as `type=`. They look at the word alone, or at whether a path exists, so
that a wrong option is refused before anything slow is imported. `tests/faults/test_options.py`
derives wrong values from them, for every option of every command.
"""

import argparse
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.hub_address import HubAddress, is_hub_address
from nnunet_fm.internal.path_parts import LEADS_ELSEWHERE, LONGEST

LARGEST_SEED = 2**32 - 1
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
WHOLE_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)


class OptionError(InputError, argparse.ArgumentTypeError):
    """The value of an option that is not allowed; argparse adds the option's name."""


def refuse(given: str, allowed: str) -> OptionError:
    """Return the error for a value, to be raised."""
    return OptionError(f"{given!r}; allowed: {allowed}")


@dataclass(frozen=True)
class Number:
    """A finite number within a range.

    Attributes:
        kind: `int` or `float`.
        low: smallest value; None: unlimited.
        high: largest value; None: unlimited.
        above: whether `low` itself is not allowed.
    """

    kind: type[int] | type[float]
    low: float | None = None
    high: float | None = None
    above: bool = False

    def __call__(self, text: str) -> Any:
        """Read a number.

        Raises:
            OptionError: no number, or one outside the range.
        """
        number = self._read(text)
        if number is None or not self._contains(number):
            raise refuse(text, self.allowed)
        return number

    @property
    def allowed(self) -> str:
        """The range in words."""
        what = "a whole number" if self.kind is int else "a number"
        if self.low is None and self.high is None:
            return what
        if self.low is None:
            return f"{what} up to {self.high}"
        if self.above:
            limit = "" if self.high is None else f" and up to {self.high}"
            return f"{what} above {self.low}{limit}"
        if self.high is None:
            return f"{what} of {self.low} or more"
        return f"{what} from {self.low} to {self.high}"

    def _read(self, text: str) -> float | None:
        if self.kind is int:
            return int(text) if WHOLE_NUMBER.fullmatch(text) and len(text) < 30 else None
        try:
            number = float(text)
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def _contains(self, number: float) -> bool:
        if self.low is not None and (number < self.low or (self.above and number == self.low)):
            return False
        return self.high is None or number <= self.high


positive_int = Number(int, 1, 2**31 - 1)
non_negative_int = Number(int, 0, 2**31 - 1)
processes = Number(int, 1, 1024)
processes_or_none = Number(int, 0, 1024)
seed = Number(int, 0, LARGEST_SEED)
dataset_id = Number(int, 1, 9999)
voxels = Number(int, 1, 4096)
cube_side = Number(int, 16, 1024)  # voxels, of `pretrain prepare`
channels = Number(int, 1, 65536)
positive_float = Number(float, 0, above=True)
non_negative_float = Number(float, 0)
fraction = Number(float, 0, 1, above=True)
cosine = Number(float, -1, 1)


@dataclass(frozen=True)
class ExistingPath:
    """A path of something that exists.

    Attributes:
        file: whether a file is allowed.
        folder: whether a folder is allowed.
    """

    file: bool = False
    folder: bool = False

    def __call__(self, text: str) -> Path:
        """Check that the path exists and is of the right kind.

        Raises:
            OptionError: an empty word, nothing at this path, or a file for a folder or the reverse.
        """
        path = _path(text, self.allowed)
        if (self.file and _is(os.path.exists, path) and not _is(os.path.isdir, path)) or (
            self.folder and _is(os.path.isdir, path)
        ):
            return path
        if _is(os.path.isdir, path):
            raise OptionError(f"{text} is a folder; allowed: {self.allowed}")
        if _is(os.path.exists, path):
            raise OptionError(f"{text} is no folder; allowed: {self.allowed}")
        raise OptionError(f"{text} does not exist; allowed: {self.allowed}")

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        kinds = ["a file"] * self.file + ["a folder"] * self.folder
        return f"{' or '.join(kinds)} that exists"


existing_file = ExistingPath(file=True)
existing_folder = ExistingPath(folder=True)
existing_path = ExistingPath(file=True, folder=True)


@dataclass(frozen=True)
class OutputPath:
    """A path that is written to, whether it exists or not.

    Attributes:
        folder: whether it is a folder; else a file.
        suffixes: allowed endings of a file's name; empty: any.
    """

    folder: bool = False
    suffixes: tuple[str, ...] = ()

    def __call__(self, text: str) -> Path:
        """Check that nothing of another kind is at the path.

        Raises:
            OptionError: an empty word, another ending, a file where a folder is needed or the
                reverse.
        """
        path = _path(text, self.allowed)
        if self.suffixes and path.suffix not in self.suffixes:
            raise refuse(text, self.allowed)
        if not self.folder and _is(os.path.isdir, path):
            raise OptionError(f"{text} is a folder; allowed: {self.allowed}")
        for part in [path, *path.parents] if self.folder else path.parents:
            if _is(os.path.exists, part) and not _is(os.path.isdir, part):
                raise OptionError(f"{part} is a file; allowed: {self.allowed}")
        return path

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.folder:
            return "a folder to write to"
        ending = f" that ends in {' or '.join(self.suffixes)}" if self.suffixes else ""
        return f"a file to write{ending}"


output_file = OutputPath()
figure_file = OutputPath(suffixes=(".png", ".svg", ".pdf"))
output_folder = OutputPath(folder=True)
encoder_file = OutputPath(suffixes=(".pth", ".safetensors"))
safetensors_file = OutputPath(suffixes=(".safetensors",))


def _path(text: str, allowed: str) -> Path:
    if not text.strip() or "\0" in text:
        raise refuse(text, allowed)
    return Path(text)


def _is(test: Callable[[Path], bool], path: Path) -> bool:
    try:
        return test(path)
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class CheckedBy:
    """Text that a function accepts; its module is imported when the option is given.

    Attributes:
        function: `package.module:function`; it raises InputError for other text.
    """

    function: str

    def __call__(self, given: str) -> str:
        """Return the text.

        Raises:
            OptionError: the function refuses it.
        """
        try:
            resolve_name(self.function)(given)
        except InputError as error:
            raise OptionError(str(error)) from None
        return given


def text(given: str) -> str:
    """Accept any word that is not empty."""
    if not given.strip() or "\0" in given:
        raise refuse(given, "a word")
    return given


def name(given: str) -> str:
    """Accept the name of a file or folder: no path.

    Raises:
        OptionError: an empty or too long name, one with `/` or other signs of a path, or with
            control characters.
    """
    allowed = "a name without / and \\, e.g. baseline_2"
    if not given.strip() or given in (".", "..") or LEADS_ELSEWHERE.search(given):
        raise refuse(given, allowed)
    if len(given.encode(errors="surrogateescape")) > LONGEST:
        raise refuse(given, f"a name of up to {LONGEST} bytes")
    return given


def names(given: str) -> list[str]:
    """Read `T1,FLAIR`: names that differ."""
    found = [part.strip() for part in given.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise refuse(given, "names that differ, e.g. T1,FLAIR")
    return found


@dataclass(frozen=True)
class KeyValue:
    """Text with a `=` behind a key; the value may be empty.

    Attributes:
        allowed: its form, for messages.
    """

    allowed: str = "KEY=VALUE"

    def __call__(self, given: str) -> str:
        """Return the text.

        Raises:
            OptionError: there is no `=`, or nothing before it.
        """
        key, equals, _ = given.partition("=")
        if not equals or not key.strip():
            raise refuse(given, self.allowed)
        return given


key_value = KeyValue()


def block_numbers(given: str) -> tuple[int, ...]:
    """Read `2,5,8,11`: numbers from 0 that differ."""
    numbers = _numbers(given)
    if not numbers or len(set(numbers)) < len(numbers):
        raise refuse(given, "block numbers from 0 that differ, e.g. 2,5,8,11")
    return numbers


def channel_numbers(given: str) -> tuple[int, ...]:
    """Read `1,2,2`: numbers from 0."""
    numbers = _numbers(given)
    if not numbers:
        raise refuse(given, "numbers of channels from 0, e.g. 0,1,2")
    return numbers


def weight_file(given: str) -> Path | str:
    """Accept a weight file, which must exist, or one on the Hub.

    Raises:
        OptionError: a path that does not exist, or an address on the Hub of another form.
    """
    return _hub_address(given) if is_hub_address(given) else existing_path(given)


def model_folder(given: str) -> Path | str:
    """Accept the folder of a trained model, which must exist, or a repository of the Hub.

    Raises:
        OptionError: a path that is no folder, or an address on the Hub of another form.
    """
    if not is_hub_address(given):
        return existing_folder(given)
    address = _hub_address(given)
    if HubAddress.parse(address).file is not None:
        raise refuse(given, "hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return address


def _hub_address(given: str) -> str:
    try:
        return str(HubAddress.parse(given))
    except InputError as error:
        raise OptionError(str(error)) from None


def _numbers(given: str) -> tuple[int, ...]:
    """Read numbers from 0 between commas; return none if anything else is among them."""
    parts = [part.strip() for part in given.split(",")]
    numbers = [int(part) for part in parts if WHOLE_NUMBER.fullmatch(part) and len(part) < 10]
    return tuple(numbers) if len(numbers) == len(parts) and min(numbers) >= 0 else ()


def point(given: str) -> tuple[int, int]:
    """Read `120,96`: a row and a column."""
    if not re.fullmatch(r"\d{1,6},\d{1,6}", given, re.ASCII):
        raise refuse(given, "ROW,COLUMN, e.g. 120,96")
    row, column = given.split(",")
    return int(row), int(column)


def encoder(given: str) -> str:
    """Accept the name of an encoder, a weight file, which must exist, or one on the Hub.

    Raises:
        OptionError: an empty word, the path of a file that does not exist, or an address on the Hub
            of another form.
    """
    path = Path(text(given))
    if is_hub_address(given):
        return _hub_address(given)
    is_path = path.suffix in WEIGHT_SUFFIXES or path.is_absolute() or given.startswith(".")
    if is_path and not _is(os.path.exists, path):
        raise OptionError(f"{given} does not exist; allowed: a weight file, or an encoder's name")
    return given
