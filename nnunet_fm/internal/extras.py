"""Packages that an extra of nnunet-fm installs."""

# package as imported: extra
EXTRAS = {
    "blosc2": "pretrain",
    "cv2": "pretrain",
    "lightly": "pretrain",
    "lightning_fabric": "pretrain",
    "pytorch_lightning": "pretrain",
    "submitit": "slurm",
    "monai": "volume",
}


def install_command(package: str) -> str:
    """Return the command that installs a package: through its extra, or by its name."""
    extra = EXTRAS.get(package)
    return f"pip install 'nnunet-fm[{extra}]'" if extra else f"pip install {package}"
