"""The card of a trained model: `config.json`, and the `README.md` that the Hub shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_fm.data.sequences import channel_names
from nnunet_fm.encoders.licence import UNSTATED, consequences, hub_licence
from nnunet_fm.internal.hub_folder import model_card
from nnunet_fm.internal.markdown import markdown_table, markdown_text
from nnunet_fm.nnunet.encoder_in_plans import UNUSED, uses_tokens
from nnunet_fm.nnunet.pretraining_overlap import seen_in_pretraining
from nnunet_fm.nnunet.published_encoder import PublishedEncoder
from nnunet_fm.nnunet.published_model import ENCODER_FILE, trained_with
from nnunet_fm.nnunet.run_record import RunRecord, read_record
from nnunet_fm.nnunet.splits import folds_to_predict
from nnunet_fm.nnunet.validation_scores import ValidationScore, pooled, validation_scores

NO_RESULTS = (
    "There are none: the folds were not validated with the exported checkpoint on cases that they "
    "were not trained on."
)
TEXT = """# {name}

A segmentation model of nnU-Net{encoder}, trained on
{dataset} (trainer `{trainer}`, configuration `{configuration}`).

{facts}

## Results

{results}

## How to use

```bash
pip install nnunet-fm
nnunet-fm predict -m hf://OWNER/{name} -i INPUT -o OUTPUT -f {folds}
```

`INPUT` holds one file per channel of each case:
{channels}.

`-m` also takes this folder on the disk. For stock nnU-Net, download it and type `nnunet-fm export
FOLDER OUT`; `OUT` is a model folder for `nnUNetv2_predict_from_modelfolder`.

## Files

{files}
"""


def describe_model(
    model: Path,
    folds: Sequence[str],
    checkpoint: str,
    content: Mapping[str, Any],
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    encoder: PublishedEncoder | None,
) -> dict[str, Any]:
    """Return the content of `config.json`, without the hashes of the files.

    Args:
        model: folder of the trained model.
        folds: folders of the folds.
        checkpoint: name of the exported checkpoint.
        content: of the checkpoint of a fold.
        plans: without paths.
        dataset: content of `dataset.json`.
        encoder: of the model; None for stock nnU-Net.
    """
    configuration = content["init_args"]["configuration"]
    planned = PlansManager(dict(plans)).get_configuration(configuration)
    records = {fold: read_record(model / fold) for fold in folds}
    scores = [s for f in folds for s in validation_scores(model / f, checkpoint, dataset["labels"])]
    latest = [record.versions[-1] for record in records.values() if record and record.versions]
    return {
        "library": "nnunet-fm",
        "trainer": trained_with(content),
        "configuration": configuration,
        "plans": plans.get("plans_name"),
        "checkpoint": checkpoint,
        "folds": {fold.removeprefix("fold_"): _training(r) for fold, r in records.items()},
        "dataset": _describe_dataset(plans, dataset),
        "spacing_mm": list(planned.spacing),
        "patch_size": list(planned.patch_size),
        "encoder": _describe_encoder(encoder) if encoder else None,
        "tokens": uses_tokens(dict(plans), configuration) if encoder else False,
        "results": [asdict(score) for score in scores],
        "versions": latest[-1] if latest else {},
    }


def _training(record: RunRecord | None) -> dict[str, int | None]:
    """Return the number of cases and epochs of a fold's training, if there is a record of it."""
    cases = len(record.train_labels) if record else 0
    return {"training_cases": cases or None, "epochs": record.epochs_done if record else None}


def _describe_dataset(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": plans.get("dataset_name"),
        "cases": dataset.get("numTraining"),
        "channels": channel_names(dict(dataset)),
        "labels": dataset["labels"],
        "file_ending": dataset.get("file_ending"),
        "licence": dataset.get("licence") or dataset.get("license"),
    }


def _describe_encoder(encoder: PublishedEncoder) -> dict[str, Any]:
    source = encoder.source
    return {
        **encoder.about,
        "card": source.card,
        "architecture": source.architecture,
        "options": source.options,
        "seed": source.seed,
        "sha256": source.sha256,
        "licence": encoder.licence,
        "fine_tuned": encoder.fine_tuned,
        "weights": encoder.place or ENCODER_FILE,
        "in_this_folder": not encoder.elsewhere or encoder.fine_tuned,
        "pretrained_on": encoder.pretrained_on,
    }


def model_readme(config: Mapping[str, Any], name: str) -> str:
    """Return the text of `README.md`, with the metadata block of the Hub.

    Args:
        config: content of `config.json`.
        name: of the model.
    """
    encoder = config["encoder"]
    dataset = config["dataset"]
    scores = [ValidationScore(**score) for score in config["results"]]
    passed_on = encoder["licence"] if encoder and encoder["in_this_folder"] else ""
    ending = dataset["file_ending"] or ""
    channels = [f"`CASE_{int(n):04d}{ending}` ({c})" for n, c in dataset["channels"].items()]
    text = TEXT.format(
        name=name,
        trainer=config["trainer"],
        configuration=config["configuration"],
        dataset=markdown_text(str(dataset["name"])),
        encoder=f" on features of the encoder `{encoder['card']}`" if config["tokens"] else "",
        facts="\n".join(f"* **{key}**: {value}" for key, value in _facts(config).items()),
        results=_results(scores),
        folds=" ".join(map(str, folds_to_predict([f"fold_{f}" for f in config["folds"]]))),
        channels=", ".join(channels),
        files=markdown_table(("file", "SHA-256"), config["files"].items()),
    )
    return model_card(
        text,
        pipeline_tag="image-segmentation",
        tags=["nnunet", "medical", "mri", *([encoder["card"]] if encoder else [])],
        model_name=name,
        eval_results=_eval_results(config, scores) or None,
        **hub_licence(passed_on),
    )


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what a reader has to know, by heading."""
    dataset, encoder = config["dataset"], config["encoder"]
    cases = [f"fold {n} on {f['training_cases'] or 'some'}" for n, f in config["folds"].items()]
    facts = {
        "Labels": markdown_text(", ".join(f"{v} {name}" for name, v in dataset["labels"].items())),
        "Training data": f"{markdown_text(str(dataset['name']))}, {dataset['cases']} cases "
        f"({', '.join(cases)} of them); licence of the data: "
        f"{markdown_text(str(dataset['licence'] or 'not stated in dataset.json'))}",
        "Voxels": f"resampled to {' x '.join(f'{side:g}' for side in config['spacing_mm'])} mm; "
        f"patches of {' x '.join(map(str, config['patch_size']))}",
    }
    if encoder:
        trained = "fine-tuned" if encoder["fine_tuned"] else "frozen"
        trained += "" if config["tokens"] else UNUSED
        whose = "the pretrained" if encoder["fine_tuned"] else "its"
        facts["Encoder"] = (
            f"`{encoder['card']}` ({encoder['architecture']}), {trained}; weights: "
            f"{encoder['weights']}; SHA-256 of {whose} tensors: `{encoder['sha256']}`"
        )
        facts["Pretraining data of the encoder"] = _pretraining(encoder, str(dataset["name"]))
    facts["Licence"] = _licence(encoder)
    facts["Versions"] = ", ".join(f"{k} {v}" for k, v in config["versions"].items()) or "not known"
    facts["Use"] = "research. It is not a medical device, and was not evaluated for clinical use"
    return facts


def _pretraining(encoder: Mapping[str, Any], dataset: str) -> str:
    if encoder["seed"] is not None:
        return "none, its weights are random"
    datasets = encoder["pretrained_on"]
    if not datasets:
        return "not known: neither the weight file nor its card says"
    subjects = f"{encoder['subjects']} subjects of " if "subjects" in encoder else ""
    seen = seen_in_pretraining(datasets, dataset)
    warning = f". {dataset} may be a part of {', '.join(seen)}" if seen else ""
    text = f"{subjects}{', '.join(datasets)}. Keep them out of every test set{warning}"
    return markdown_text(text)


def _licence(encoder: Mapping[str, Any] | None) -> str:
    """Say under which licence the model is, and what follows from that of the encoder."""
    if not encoder or not encoder["licence"]:
        return UNSTATED
    licence = encoder["licence"]
    what = "contains" if encoder["in_this_folder"] else "needs, but does not contain,"
    clauses = "; ".join(
        [f"weights of the encoder. Their licence: {licence}", *consequences(licence)]
    )
    own = "" if hub_licence(licence) and encoder["in_this_folder"] else f". Your own: {UNSTATED}"
    return f"this folder {what} {markdown_text(clauses)}{own}"


def _results(scores: Sequence[ValidationScore]) -> str:
    if not scores:
        return NO_RESULTS
    rows = [
        (s.fold, s.label, s.cases, f"{s.dice:.4f}", f"{s.iou:.4f}")
        for s in (*scores, *(p for p in pooled(scores) if "," in p.fold))
    ]
    table = markdown_table(("fold", "label", "cases", "Dice", "IoU"), rows)
    return (
        "Means of nnU-Net's own validation (`validation/summary.json`), for each fold on the cases "
        f"that it\nwas not trained on:\n\n{table}"
    )


def _eval_results(config: Mapping[str, Any], scores: Sequence[ValidationScore]) -> list[Any]:
    """Return the results as the Hub lists them."""
    from huggingface_hub import EvalResult

    name = str(config["dataset"]["name"])
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=name,
            dataset_name=name,
            dataset_split=f"validation (fold {score.fold})",
            metric_type=metric,
            metric_name=f"{label}, {score.label}",
            metric_value=round(value, 4),
        )
        for score in pooled(scores)
        for metric, label, value in (("dice", "Dice", score.dice), ("iou", "IoU", score.iou))
    ]
