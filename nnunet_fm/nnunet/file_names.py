"""Names of the files and folders that nnU-Net writes."""

# of a model, nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION, and of a preprocessed dataset
PLANS_JSON = "plans.json"
DATASET_JSON = "dataset.json"
FINGERPRINT_JSON = "dataset_fingerprint.json"

# of a raw dataset
TRAIN_LABELS = "labelsTr"

# of a preprocessed dataset
SPLITS_JSON = "splits_final.json"
GROUND_TRUTH = "gt_segmentations"

# of a fold, fold_N of a model
FINAL_CHECKPOINT = "checkpoint_final.pth"
LATEST_CHECKPOINT = "checkpoint_latest.pth"
BEST_CHECKPOINT = "checkpoint_best.pth"
FORMER_CHECKPOINT = "checkpoint_former.pth"  # ours: final one of a training that was redone
RESUMED_FROM = (FINAL_CHECKPOINT, LATEST_CHECKPOINT, BEST_CHECKPOINT)  # by --c
DEBUG_JSON = "debug.json"
LOGS = "training_log_*.txt"
VALIDATION = "validation"
SUMMARY_JSON = "validation/summary.json"
