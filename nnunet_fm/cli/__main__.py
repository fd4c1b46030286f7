"""`python -m nnunet_fm.cli ...`: the same as `nnunet-fm ...`."""

import sys

from nnunet_fm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
