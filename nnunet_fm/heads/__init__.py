"""Classification, regression and survival on frozen or fine-tuned encoders.

What `nnunet-fm heads` does, in Python:

    from pathlib import Path
    from nnunet_fm import heads

    inputs = heads.open_task("brain_age", "subjects.csv", "CACHE", ["seeds=3"])
    runs = [heads.run_task(inputs.collect(name), Path("RESULTS")) for name in ("braindino", "mine")]
    print(heads.results_table(runs[0].results))
    comparisons = heads.compare(runs)
    changes = heads.measure_robustness(inputs, "braindino")
"""

from nnunet_fm.heads.comparison import compare, comparison_table, write_comparison
from nnunet_fm.heads.finetune import FineTuneTask, finetune_data
from nnunet_fm.heads.results import results_table
from nnunet_fm.heads.robustness import measure_robustness, robustness_table, write_robustness
from nnunet_fm.heads.runner import run_task
from nnunet_fm.heads.saved_runs import read_run
from nnunet_fm.heads.task import read_task, task_summaries
from nnunet_fm.heads.task_data import open_task

__all__ = [
    "FineTuneTask",
    "compare",
    "comparison_table",
    "finetune_data",
    "measure_robustness",
    "open_task",
    "read_run",
    "read_task",
    "results_table",
    "robustness_table",
    "run_task",
    "task_summaries",
    "write_comparison",
    "write_robustness",
]
