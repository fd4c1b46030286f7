"""`python -m nnunet_fm_pretrain`: the same as `nnunet-fm pretrain`, for torchrun and srun."""

import sys

from nnunet_fm.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["pretrain", *sys.argv[1:]]))
