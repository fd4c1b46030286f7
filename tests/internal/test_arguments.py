"""Flags that derive from a model's fields."""

import argparse
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from nnunet_fm.internal.arguments import (
    Flag,
    add_model_arguments,
    check_part,
    model_from_arguments,
    parse_key_values,
)
from nnunet_fm.internal.config import Name, Part
from nnunet_fm.internal.option_types import block_numbers


class Options(Part):
    """Every kind of field."""

    base: Annotated[str, Flag("-c", metavar="NAME", required=True)] = Field(
        "2d", description="where it begins"
    )
    mode: Literal["a", "b"] | None = None
    sides: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    taps: Annotated[tuple[int, ...] | None, Flag(parse=block_numbers)] = None
    rate: float = Field(0.5, description="a share (default: %(default)s)")
    output: Annotated[Name | None, Flag("-o")] = None
    quick: bool = False
    extra: Annotated[dict[str, Any], Flag("--encoder-option", "--option")] = Field(
        default_factory=dict
    )


def parse(*words: str) -> Options:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser, Options)
    return model_from_arguments(Options, parser.parse_args(words))


def test_every_field_becomes_a_flag_with_its_default() -> None:
    assert parse("-c", "3d") == Options(base="3d")
    typed = [
        "-c",
        "3d",
        "--mode",
        "b",
        "--sides",
        "4",
        "5",
        "--taps",
        "1,2",
        "--rate",
        "0.1",
        "--quick",
        "--option",
        "a=1",
    ]
    assert parse(*typed, "--encoder-option", "b=x") == Options(
        base="3d",
        mode="b",
        sides=(4, 5),
        taps=(1, 2),
        rate=0.1,
        quick=True,
        extra={"a": 1, "b": "x"},
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "required: -c"),
        (("-c", "x", "--mode", "c"), "choose from"),
        (("-c", "x", "--rate", "much"), "'much'; allowed: a number"),
        (("-c", "x", "--taps", "a"), "allowed: block numbers"),
        (("-c", "x", "--sides", "4", "0"), "argument --sides: '0'; allowed: a whole number"),
        (("-c", "x", "--rate", "nan"), "argument --rate: 'nan'; allowed"),
        (("-c", "x", "-o", "../y"), "argument -o: '../y'; allowed: a name without /"),
        (("-c", ""), "argument -c: ''"),
    ],
)
def test_wrong_words_are_refused_by_the_parser(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


def test_the_model_has_the_same_rules() -> None:
    for wrong in ({"sides": (4, 0)}, {"rate": float("nan")}, {"output": "../y"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Options(**wrong)


def test_the_help_shows_descriptions_and_defaults() -> None:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser, Options)
    text = parser.format_help()
    assert "-c NAME" in text
    assert "where it begins" in text
    assert "a share (default: 0.5)" in text
    assert "{a,b}" in text


def test_key_values() -> None:
    read = parse_key_values(["qkv_bias=true", "norm_eps=1e-6", "rope=bfloat16", "name=a=b"])
    assert read == {"qkv_bias": True, "norm_eps": 1e-6, "rope": "bfloat16", "name": "a=b"}
    for wrong in ("qkv_bias", "eps=NaN", "eps=1e999"):
        with pytest.raises(ValueError, match="allowed"):
            parse_key_values([wrong])


def test_parts() -> None:
    check_part((0, 1))
    with pytest.raises(ValueError, match="part 2 of 2; allowed: --part-id from 0 to 1"):
        check_part((2, 2))
