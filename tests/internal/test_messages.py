"""The wording of errors."""

from nnunet_fm.internal.messages import MOST_NAMES, some, unknown


def test_close_matches_come_first_then_everything_allowed() -> None:
    assert unknown("decoder", "primos", ["primus", "light"], "See --help.") == (
        "unknown decoder 'primos'. Did you mean primus? Allowed: light, primus. See --help."
    )
    assert unknown("fov", "zzz", ("native", "fit")) == "unknown fov 'zzz'. Allowed: fit, native."


def test_long_lists_of_allowed_names_are_left_out() -> None:
    names = [f"name{n:02d}" for n in range(MOST_NAMES)]
    assert "name19" in unknown("task", "x", names)
    assert unknown("task", "x", [*names, "other"]) == "unknown task 'x'."


def test_some_items() -> None:
    assert some([]) == ""
    assert some(["a", "b", "c", "d"]) == "a, b, c, d"
    assert some(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d, and 2 more"
    assert some(["a", "b"], most=1) == "a, and 1 more"
