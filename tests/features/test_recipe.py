from dataclasses import replace

from nnunet_fm.features import FeatureRecipe

RECIPE = FeatureRecipe(
    "enc", "ab" * 32, "dinov3_test16", {"norm_eps": 1e-6}, (1, 3), "bfloat16", {"strip": "none"}
)


def test_every_part_of_the_recipe_and_the_input_is_in_the_key_but_the_name() -> None:
    others = [
        replace(RECIPE, encoder="cd" * 32),
        replace(RECIPE, architecture="other"),
        replace(RECIPE, options={"norm_eps": 1e-5}),
        replace(RECIPE, layers=(3,)),
        replace(RECIPE, precision="float32"),
        replace(RECIPE, preprocessing={"strip": "mask"}),
        replace(RECIPE, perturbation={"gamma": 2}),
    ]
    keys = {r.key("input") for r in [RECIPE, *others]} | {RECIPE.key("other input")}
    assert len(keys) == len(others) + 2
    assert replace(RECIPE, name="renamed").key("input") == RECIPE.key("input")
    assert FeatureRecipe.from_json(RECIPE.to_json()) == RECIPE
