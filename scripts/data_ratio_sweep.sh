#!/usr/bin/env bash
# Train one encoder and stock nnU-Net on growing shares of a dataset's training cases, then report.
#
#   scripts/data_ratio_sweep.sh DATASET ENCODER [RATIOS] [KEY=VALUE ...] [--dry-run]
#   scripts/data_ratio_sweep.sh 8 braindino.pth
#   scripts/data_ratio_sweep.sh 8 braindino.pth 0.1,0.2,1.0 seeds=[42,43] device=cpu
#   scripts/data_ratio_sweep.sh 8 braindino.pth encoders.random.encoder=dinov3_vitb16
#
# DATASET is an id that nnUNetv2_plan_and_preprocess was run for; ENCODER is a weight file, a card
# or an architecture. Rerun the same command to resume. --dry-run checks everything and changes
# nothing. All keys: docs/sweeps.md.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
dataset=$1 encoder=$2 ratios=0.1,0.2,0.4,0.6,0.8,1.0
shift 2
if [ $# -gt 0 ] && [[ $1 =~ ^[0-9.,]+$ ]]; then
    ratios=$1
    shift
fi
folder=sweeps/ratios_${dataset}_${ratios//,/_}
what=("datasets=[$dataset]" "encoders.frozen.encoder='$encoder'" "ratios=[$ratios]")
nnunet-fm sweep data_ratios -o "$folder" "${what[@]}" "$@" || failed=$?
case " $* " in *" --dry-run "* | *" --print "* | *" slurm "*) exit "${failed:-0}" ;; esac
nnunet-fm report "$folder" -o "$folder/report"
exit "${failed:-0}"
