"""Weight files from the Hugging Face Hub, by `huggingface_hub`: its cache, token and offline mode.

A file is named by the commit that it belongs to, so that plans read the same weights for ever, and
a file that is in the cache needs no network.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.internal.errors import MissingFileError
from nnunet_fm.internal.hub_address import HubAddress
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.option_types import WEIGHT_SUFFIXES

SAFE = ".safetensors"
TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubFile:
    """A weight file of the Hub in the local cache.

    Attributes:
        path: in the cache.
        address: with the commit and the file.
        licence: that the repository states; empty if it states none, or was not asked.
    """

    path: Path
    address: HubAddress
    licence: str = ""


def fetch(given: str) -> HubFile:
    """Return a file of the Hub, downloaded unless it is in the cache.

    Args:
        given: `hf://OWNER/NAME[@REVISION][/FILE]`; without a file, the only weight file of the
            repository, a `.safetensors` before others.

    Raises:
        MissingFileError: no such repository, revision or file.
        CheckpointError: the repository is gated, or has no or several weight files; there is no
            network and the cache does not have the file; or the cache cannot be written.
        InputError: an address of another form.
    """
    address = HubAddress.parse(given)
    if address.is_pinned:
        path = _cached(address)
        if path is not None:
            return HubFile(path, address)
    with _sentences(address):
        try:
            return _download(address)
        except Exception as error:
            found = _cached(address) if _is_transport(error) else None
            if found is None:
                raise
            logger.warning("the Hub cannot be reached; using its cache: %s", found)
            return HubFile(found, replace(address, revision=_commit_of(found)))


def _download(address: HubAddress) -> HubFile:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    about = api.model_info(address.repository, revision=address.revision)
    files = sorted(sibling.rfilename for sibling in about.siblings or ())
    file = _chosen(address, files)
    path = Path(
        huggingface_hub.hf_hub_download(  # notes the branch's commit for a later use offline
            address.repository, file, revision=address.revision, endpoint=api.endpoint
        )
    )
    pinned = replace(address, revision=_commit_of(path), file=file)
    licence = _licence(about)
    logger.warning("%s: licence %s", pinned, licence or "not stated by the repository")
    return HubFile(path, pinned, licence)


def _chosen(address: HubAddress, files: Sequence[str]) -> str:
    """Return the file that was asked for, or the only weight file of a repository."""
    weights = [name for name in files if Path(name).suffix in WEIGHT_SUFFIXES]
    if address.file is not None:
        if address.file not in files:
            raise MissingFileError(
                f"{address}: the repository has no such file; its weight files: "
                f"{some(weights) or 'none'}"
            )
        return address.file
    safe = [name for name in weights if name.endswith(SAFE)]
    candidates = safe or weights
    if not candidates:
        raise CheckpointError(f"{address} has no weight file ({', '.join(WEIGHT_SUFFIXES)})")
    if len(candidates) > 1:
        raise CheckpointError(
            f"{address} has {len(candidates)} weight files: {some(candidates)}; allowed: one of "
            f"them, e.g. {replace(address, file=candidates[0])}"
        )
    return candidates[0]


def _cached(address: HubAddress) -> Path | None:
    """Return the file of the cache, of the default branch if no revision was given."""
    import huggingface_hub

    if address.file is None:
        return None
    path = huggingface_hub.try_to_load_from_cache(
        address.repository, address.file, revision=address.revision
    )
    return Path(path) if isinstance(path, str) else None


def _commit_of(path: Path) -> str:
    """Return the commit of a file of the cache, `.../snapshots/COMMIT/FILE`."""
    return path.parts[path.parts.index("snapshots") + 1]


def _licence(about: Any) -> str:
    """Return the licence that a repository states, by its own name if it is an unusual one."""
    card = about.card_data or {}
    named = card.get("license_name") if card.get("license") == "other" else None
    return str(named or card.get("license") or "")


@contextmanager
def _sentences(address: HubAddress) -> Iterator[None]:
    """Turn errors of the Hub into one sentence each."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{address.repository}"
    try:
        yield
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{address} is gated: accept its conditions on {page}, then type `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise MissingFileError(
            f"{address}: there is no such repository, or it is private; look at {page}, or type "
            "`hf auth login` for a private one"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingFileError(
            f"{address}: the repository has no revision {address.revision}; its revisions: "
            f"{page}/commits/main"
        ) from None
    except PermissionError as error:
        raise CheckpointError(
            f"{address} cannot be written to the cache of the Hub ({error}); set HF_HUB_CACHE to a "
            "folder that can be written"
        ) from None
    except errors.HfHubHTTPError as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(f"{address}: the Hub answered: {first_line}; try again") from None
    except Exception as error:
        if not _is_transport(error):
            raise
        raise CheckpointError(
            f"{address}: the Hub cannot be reached ({type(error).__name__}), and its cache does "
            "not have the file; try again with a network, or give a file that you have"
        ) from None


def _is_transport(error: BaseException) -> bool:
    """Whether the network failed, or is not allowed (HF_HUB_OFFLINE)."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return True
    return type(error).__module__.split(".")[0] in TRANSPORT or isinstance(error, ConnectionError)
