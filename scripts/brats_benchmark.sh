#!/usr/bin/env bash
# Run a BraTS benchmark: convert the downloaded folder, preprocess, sweep, report.
#
#   scripts/brats_benchmark.sh FOLDER SWEEP ENCODER [KEY=VALUE ...] [--dry-run]
#   scripts/brats_benchmark.sh BraTS2021_Training_Data brats2021 braindino.pth encoders.dinov3=null
#
# SWEEP is brats2021, brats2023_men, brats2023_mets or brats2024_goat. ENCODER is a weight file; it
# is used frozen and fine-tuned. Give the weights of DINOv3 with encoders.dinov3.encoder=FILE, or
# remove it with encoders.dinov3=null. Rerun the same command to resume. --dry-run and
# --print change nothing: they print what would be converted and preprocessed first, and otherwise
# check the sweep or print its commands. All keys: docs/sweeps.md.
set -euo pipefail
if [ $# -lt 3 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
source=$1 sweep=$2 encoder=$3
shift 3
case $sweep in
    brats2021) id=21 name=BraTS21 ;;
    brats2023_men) id=231 name=MEN23 ;;
    brats2023_mets) id=232 name=METS23 ;;
    brats2024_goat) id=241 name=GoAT24 ;;
    *)
        echo "unknown sweep $sweep;" \
            "allowed: brats2021, brats2023_men, brats2023_mets, brats2024_goat" >&2
        exit 2
        ;;
esac
: "${nnUNet_raw:?is not set}" "${nnUNet_preprocessed:?is not set}" "${nnUNet_results:?is not set}"
case " $* " in *" --dry-run "* | *" --print "*) dry_run=1 ;; esac
step() { # runs a command; with --dry-run or --print, only prints it
    if [ -z "${dry_run:-}" ]; then "$@"; else printf 'would run:' && printf ' %q' "$@" && echo; fi
}
dataset=$(printf 'Dataset%03d_%s' $id $name)
described=$nnUNet_raw/$dataset/dataset.json
if [ ! -f "$described" ]; then
    [ -d "$source" ] || { echo "$source is no folder; give the downloaded one" >&2 && exit 2; }
    # exit code 1: written, but something was left out; the sweep then checks the number of cases
    step nnunet-fm convert brats "$source" -d $id -n $name || [ -f "$described" ]
fi
plans=$nnUNet_preprocessed/$dataset
count() { { find -L "$1" -maxdepth 1 -name "$2" 2> /dev/null || true; } | wc -l; }
cases=$(count "$nnUNet_raw/$dataset/labelsTr" '*.nii.gz')
[ "$cases" -gt 0 ] || unfinished=1
for configuration in 2d 3d_fullres; do
    [ "$(count "$plans/nnUNetPlans_$configuration" '*.pkl')" -ge "$cases" ] || unfinished=1
done
# nnU-Net copies the ground truth at the end
[ "$(count "$plans/gt_segmentations" '*.nii.gz')" -ge "$cases" ] || unfinished=1
[ -z "${unfinished:-}" ] || step nnUNetv2_plan_and_preprocess -d $id -c 2d 3d_fullres
if [ -n "${dry_run:-}" ] && [ -n "${unfinished:-}" ]; then
    echo "the sweep itself can be checked and printed once $dataset is preprocessed"
    exit 0
fi
weights=("encoders.braindino.encoder='$encoder'" "encoders.finetuned.encoder='$encoder'")
nnunet-fm sweep "$sweep" -o "sweeps/$sweep" "${weights[@]}" "$@" || failed=$?
case " $* " in *" --dry-run "* | *" --print "* | *" slurm "*) exit "${failed:-0}" ;; esac
nnunet-fm report "sweeps/$sweep" -o "sweeps/$sweep/report"
exit "${failed:-0}"
