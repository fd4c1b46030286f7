"""What the sub-commands of `nnunet-fm pretrain` share."""

import argparse
from typing import TypeAlias

from nnunet_fm.internal import option_types

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

STRIPPING = option_types.CheckedBy("nnunet_fm.data.skull_stripping:find_stripper")
