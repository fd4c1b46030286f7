"""`nnunet-fm pretrain synthesize|prepare|run|export|probe|doctor`. Imports are made where needed."""

import argparse
import sys
from pathlib import Path

from nnunet_fm.internal.errors import InputError


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-commands to a parser."""
    _add_synthesize(commands)
    _add_prepare(commands)
    _add_run(commands)
    _add_export(commands)
    _add_probe(commands)
    _add_doctor(commands)


def _add_synthesize(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    synthesize = commands.add_parser(
        "synthesize", help="make brains of random contrast to pretrain on"
    )
    synthesize.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    synthesize.add_argument(
        "--subjects", type=int, default=200, help="of four registered sequences each"
    )
    synthesize.add_argument("--first-seed", type=int, default=0)
    synthesize.add_argument("-np", type=int, default=2, help="subjects at a time")
    synthesize.set_defaults(function=_synthesize)


def _synthesize(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.data.synthesis import synthesize

    table = synthesize(parsed.o, parsed.subjects, parsed.first_seed, parsed.np)
    print(f"Next: nnunet-fm pretrain prepare {table} --registered -o STORE")


def _add_prepare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    prepare = commands.add_parser("prepare", help="make a slice store from MRI volumes")
    prepare.add_argument(
        "source",
        type=Path,
        help="folder, BIDS tree, or CSV (subject_id,dataset,sequence,path[,mask])",
    )
    prepare.add_argument("-o", type=Path, required=True, metavar="STORE")
    prepare.add_argument(
        "--size", type=int, default=256, help="side of the cube that the brain is resized to"
    )
    prepare.add_argument("--slices", type=int, default=128, help="axial slices kept of a volume")
    prepare.add_argument(
        "--strip", default="none", help="none, mask, hd-bet, deepbet, or command:PROGRAM {in} {out}"
    )
    prepare.add_argument(
        "--compact", action="store_true", help="255 grey levels instead of float16: 0.6 of the disk"
    )
    prepare.add_argument(
        "--registered",
        action="store_true",
        help="sequences of a session lie on one grid: crop them together",
    )
    prepare.add_argument(
        "--exclude-subjects", type=Path, metavar="FILE", help="subject ids to leave out, one a line"
    )
    prepare.add_argument(
        "--dataset", help="name of the collection, where the input does not say it"
    )
    prepare.add_argument("--licence", default="", help="a note for the manifest")
    prepare.add_argument("--seed", type=int, default=0, help="of the draw of slices")
    prepare.add_argument("-np", type=int, default=2, help="volumes at a time")
    prepare.add_argument("--num-parts", type=int, default=1)
    prepare.add_argument("--part-id", type=int, default=0)
    prepare.set_defaults(function=_prepare)


def _prepare(parsed: argparse.Namespace) -> int:
    from nnunet_fm_pretrain.data.prepare import Job, prepare
    from nnunet_fm_pretrain.data.preprocessing import Preprocessing

    numbers = Preprocessing(parsed.size, parsed.slices, seed=parsed.seed)
    job = Job(parsed.o, numbers, parsed.strip, parsed.compact, parsed.registered)
    outcomes = prepare(
        parsed.source,
        job,
        parsed.np,
        (parsed.part_id, parsed.num_parts),
        parsed.exclude_subjects,
        parsed.dataset,
        parsed.licence,
    )
    failed = [o for o in outcomes if not o.record]
    made = sum(not o.ready for o in outcomes if o.record)
    print(
        f"{made} volumes made, {len(outcomes) - len(failed) - made} were ready, {len(failed)} failed: {parsed.o}"
    )
    for outcome in failed[:10]:
        print(f"  {outcome.source.name}: {outcome.reason}", file=sys.stderr)
    if failed:
        print(
            f"all of them: {parsed.o}/failures*.csv. Mend these or leave them out, then type the",
            file=sys.stderr,
        )
        print("command again: what is made is kept", file=sys.stderr)
    return 1 if failed else 0


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser(
        "run",
        help="train an encoder; typed again, it goes on where it was",
        usage="nnunet-fm pretrain run RECIPE --store STORE -o RUN [KEY=VALUE ...]",
        epilog="KEY=VALUE changes one key of the recipe, e.g. optimiser.steps=1000",
    )
    run.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    run.add_argument("--store", type=Path, required=True)
    run.add_argument("-o", type=Path, required=True, metavar="RUN")
    run.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="RUN",
        help="start from that run's weights (stage 2)",
    )
    run.add_argument("--accelerator", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    run.set_defaults(function=_run, overrides=[])


def _run(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.data.slice_store import SliceStore
    from nnunet_fm_pretrain.engine.recipe_files import read_recipe

    recipe, store = read_recipe(parsed.recipe, parsed.overrides), SliceStore(parsed.store)
    from nnunet_fm_pretrain.engine.loop import Engine, make_fabric

    fabric = make_fabric(recipe, parsed.accelerator)
    fabric.launch()
    finished = Engine(recipe, store, parsed.o, parsed.start, fabric).train()
    if finished and fabric.global_rank == 0:
        print(f"finished: {parsed.o}. Next: nnunet-fm pretrain export {parsed.o} -o ENCODER.pth")


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export", help="write the trained encoder as a file for nnunet-fm plan --encoder"
    )
    export.add_argument("run", type=Path, help="folder of the run, or one of its checkpoints")
    export.add_argument(
        "-o", type=Path, required=True, metavar="FILE", help=".pth (DINOv3's form) or .safetensors"
    )
    export.add_argument("--half", action="store_true", help="float16: half the size")
    export.set_defaults(function=_export)


def _export(parsed: argparse.Namespace) -> None:
    from nnunet_fm_pretrain.engine.export import export

    card = export(parsed.run, parsed.o, parsed.half)
    if card["step"] < card["steps"]:
        print(f"note: the run stands at step {card['step']} of {card['steps']}")
    print(f"wrote {parsed.o}: {card['card']}, licence: {card['licence']}")
    print(f"Next: nnunet-fm plan -d DATASET --encoder {parsed.o}")


def _add_probe(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    probe = commands.add_parser("probe", help="linear probes beside random weights and raw pixels")
    probe.add_argument(
        "encoders", type=Path, nargs="+", metavar="FILE", help="weight files of one network"
    )
    probe.add_argument(
        "--table", type=Path, help="CSV with subject_id, path and targets (and mask)"
    )
    probe.add_argument("--strip", default="none", help="as in prepare")
    probe.add_argument("--targets", default="", metavar="age,sex")
    probe.add_argument(
        "--held-out", type=Path, metavar="FILE", help="subjects that pretraining has not seen"
    )
    probe.add_argument(
        "--dataset",
        type=Path,
        metavar="nnUNet_raw/DatasetXXX",
        help="labelled data for the patch probe",
    )
    probe.add_argument(
        "--split", type=Path, metavar="FILE", help="splits_final.json of that dataset"
    )
    probe.add_argument("--fold", type=int, default=0)
    probe.add_argument("--size", type=int, default=128, help="as in prepare")
    probe.add_argument("--slices", type=int, default=64, help="as in prepare")
    probe.add_argument(
        "--seeds", type=int, default=3, help="randomly initialised networks beside it"
    )
    probe.add_argument("-o", type=Path, metavar="CSV")
    probe.set_defaults(function=_probe)


def _probe(parsed: argparse.Namespace) -> None:
    if not (parsed.table and parsed.targets) and not (parsed.dataset and parsed.split):
        raise InputError(
            "nothing to probe; give --table FILE --targets age,sex, or --dataset FOLDER --split FILE"
        )
    from nnunet_fm.internal.files import write_csv
    from nnunet_fm_pretrain.data.preprocessing import Preprocessing
    from nnunet_fm_pretrain.probing.linear_probes import ProbeResult, markdown
    from nnunet_fm_pretrain.probing.run import encoders_beside_random, probe_patches, probe_table

    encoders = encoders_beside_random(parsed.encoders, parsed.seeds)
    results: list[ProbeResult] = []
    if parsed.table:
        options = Preprocessing(parsed.size, parsed.slices)
        targets = parsed.targets.split(",")
        results += probe_table(
            encoders, parsed.table, targets, options, parsed.held_out, parsed.strip
        )
    if parsed.dataset:
        results += probe_patches(encoders, parsed.dataset, parsed.split, parsed.fold, parsed.size)
    print(markdown(results))
    if parsed.o:
        write_csv(results, parsed.o)


def _add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser(
        "doctor", help="check packages, devices, a store and a recipe; print the fixes"
    )
    doctor.add_argument(
        "--store", type=Path, help="read every volume of it and compare with the manifest"
    )
    doctor.add_argument("--recipe", help="does it fit the store and this machine?")
    doctor.set_defaults(function=_doctor)


def _doctor(parsed: argparse.Namespace) -> int:
    from nnunet_fm.internal.findings import print_findings
    from nnunet_fm_pretrain.doctor import examine

    return print_findings(examine(parsed.store, parsed.recipe))
