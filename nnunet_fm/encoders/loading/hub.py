"""Files and folders of the Hugging Face Hub.

They come by `huggingface_hub`, with its cache, token and offline mode. A file is named by the
commit that it belongs to, so that plans always read the same weights, and a file that is in the
cache needs no network.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nnunet_fm.encoders.loading.read import CheckpointError
from nnunet_fm.internal.errors import InputError, MissingFileError
from nnunet_fm.internal.hub_address import HubAddress
from nnunet_fm.internal.messages import some
from nnunet_fm.internal.option_types import WEIGHT_SUFFIXES

SAFE, CARD = ".safetensors", "README.md"
TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubFile:
    """A weight file or folder of the Hub in the local cache.

    Attributes:
        path: in the cache.
        address: with the commit, and the file unless it is a folder.
        licence: that the repository states; empty if it states none.
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
        MissingFileError: no such repository, revision or file, no access to it, or no network and
            no such file in the cache.
        CheckpointError: the repository has no or several weight files, or the cache cannot be
            written.
        InputError: an address of another form.
    """
    address = HubAddress.parse(given)
    if address.is_pinned:
        found = _in_cache(address)
        if found is not None:
            return found
    lacking = "its cache does not have the file"
    if address.file is None:
        lacking = "without a network, name a file that its cache has, hf://OWNER/NAME/FILE"
    with _sentences(address, lacking):
        try:
            return _download(address)
        except Exception as error:
            found = _in_cache(address) if _is_transport(error) else None
            if found is None:
                raise
            logger.warning("the Hub cannot be reached; using its cache: %s", found.path)
            return found


def fetch_folder(given: str, patterns: Sequence[str]) -> HubFile:
    """Return the folder of a repository, downloaded unless it is in the cache.

    Args:
        given: `hf://OWNER/NAME[@REVISION]`.
        patterns: names of the files that are wanted, with `*` for any characters.

    Raises:
        MissingFileError, CheckpointError, InputError: as `fetch`, or an address of a file.
    """
    import huggingface_hub

    address = HubAddress.parse(given)
    if address.file is not None:
        raise InputError(f"{given} names a file; allowed: hf://OWNER/NAME[@REVISION]")
    with _sentences(address, "its cache does not have the whole folder"):
        path = Path(
            huggingface_hub.snapshot_download(
                address.repository,
                revision=address.revision,
                allow_patterns=list(patterns),
                endpoint=huggingface_hub.HfApi().endpoint,
            )
        )
    pinned = replace(address, revision=path.name)
    found = HubFile(path, pinned, _licence(pinned))
    logger.warning("%s: licence %s", pinned, found.licence or "not stated by the repository")
    return found


def _download(address: HubAddress) -> HubFile:
    import huggingface_hub

    api = huggingface_hub.HfApi()
    about = api.model_info(address.repository, revision=address.revision)
    files = sorted(sibling.rfilename for sibling in about.siblings or ())
    named = replace(address, file=_chosen(address, files))
    for file in (CARD, named.file) if CARD in files else (named.file,):
        huggingface_hub.hf_hub_download(  # notes the commit of a branch, for use without a network
            named.repository, str(file), revision=named.revision, endpoint=api.endpoint
        )
    found = _in_cache(named)
    if found is None or HubAddress.parse(str(found.address)) != found.address:
        raise CheckpointError(f"{named} cannot be named in plans; give a local file")
    licence = found.licence or "not stated by the repository"
    logger.warning("%s: licence %s", found.address, licence)
    return found


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


def _in_cache(address: HubAddress) -> HubFile | None:
    """Return a file of the cache, of the default branch if no revision was given."""
    path = None if address.file is None else _cached(address, address.file)
    if path is None:
        return None
    commit = path.parts[-1 - len(PurePosixPath(str(address.file)).parts)]  # snapshots/COMMIT/FILE
    pinned = replace(address, revision=commit)
    return HubFile(path, pinned, _licence(pinned))


def _cached(address: HubAddress, file: str) -> Path | None:
    import huggingface_hub

    path = huggingface_hub.try_to_load_from_cache(
        address.repository, file, revision=address.revision
    )
    return Path(path) if isinstance(path, str) else None


def _licence(address: HubAddress) -> str:
    """Return the licence that the model card in the cache states, by its own name if unusual."""
    import huggingface_hub

    path = _cached(address, CARD)
    if path is None:
        return ""
    try:
        data = huggingface_hub.ModelCard.load(path, ignore_metadata_errors=True).data
    except ValueError:  # no valid block of metadata
        return ""
    named = data.license_name if data.license == "other" else None
    return str(named or data.license or "")


@contextmanager
def _sentences(address: HubAddress, lacking: str) -> Iterator[None]:
    """Turn errors of the Hub into one sentence each; `lacking`: what the cache does not have."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{address.repository}"
    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError:
        raise MissingFileError(
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
    except Exception as error:
        if _is_transport(error):
            raise MissingFileError(_unreachable(address, error, lacking)) from None
        if isinstance(error, PermissionError):
            raise CheckpointError(
                f"{address} cannot be written to the cache of the Hub ({error}); set HF_HUB_CACHE "
                "to a folder that can be written"
            ) from None
        if isinstance(error, errors.HfHubHTTPError):
            first_line = str(error).splitlines()[0]
            raise CheckpointError(f"{address}: the Hub answered: {first_line}") from None
        raise


def _unreachable(address: HubAddress, error: Exception, lacking: str) -> str:
    return (
        f"{address}: the Hub cannot be reached ({type(error).__name__}), and {lacking}; try again "
        "with a network, or give a local file or folder"
    )


def _is_transport(error: BaseException) -> bool:
    """Whether the network or the Hub failed, or the network is not allowed (HF_HUB_OFFLINE)."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return True
    if isinstance(error, errors.HfHubHTTPError):
        return getattr(error.response, "status_code", 0) >= 500
    return type(error).__module__.split(".")[0] in TRANSPORT or isinstance(error, ConnectionError)
