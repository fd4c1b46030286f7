"""A small server on the loopback address that speaks the Hub's API for models."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from nnunet_fm.encoders import build_encoder

COMMIT = "a" * 40
CARD = {"nnunet_fm_card": json.dumps({"card": "dinov3_test16", "architecture": "dinov3_test16"})}


def weights() -> bytes:
    """Return a file of `dinov3_test16`."""
    torch.manual_seed(0)
    return save(build_encoder("dinov3_test16").state_dict(), CARD)


def use_hub(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Do what HF_ENDPOINT and HF_HUB_CACHE do when `huggingface_hub` is imported."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@dataclass
class Repository:
    """What the server has of a repository.

    Attributes:
        files: content by path.
        commit: of the branch main.
        licence: in its card.
        gated: whether files need a token.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    licence: str = "cc-by-nc-4.0"
    gated: bool = False


@dataclass
class HubServer:
    """The server's repositories, its address, the paths that were asked for, and its state."""

    repositories: dict[str, Repository]
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)
    failing: bool = False


@contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[HubServer]:
    """Serve repositories until the block ends."""
    hub = HubServer(repositories)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with the content."""
            self._answer(content=True)

        def do_HEAD(self) -> None:
            """Answer with the headers."""
            self._answer(content=False)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def _answer(self, content: bool) -> None:
            hub.asked.append(self.path)
            status, headers, body = _response(hub, self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if content:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _response(hub: HubServer, path: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and content of an answer."""
    parts = [unquote(part) for part in path.split("?")[0].strip("/").split("/")]
    api = parts[:2] == ["api", "models"]
    parts = parts[2:] if api else parts
    repository = hub.repositories.get("/".join(parts[:2]))
    if hub.failing:
        return 503, {}, b""
    if repository is None:
        return 404, {"X-Error-Code": "RepoNotFound"}, b""
    revision = parts[3] if len(parts) > 3 else "main"
    card = f"---\nlicense: {repository.licence}\n---\ntext\n".encode()
    files = {"README.md": card} | repository.files
    if revision not in ("main", "a/branch", repository.commit):
        return 404, {"X-Error-Code": "RevisionNotFound"}, b""
    if api and parts[2:3] == ["tree"]:
        tree = [
            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            for name, content in files.items()
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
    if api:
        about = {
            "id": "/".join(parts[:2]),
            "modelId": "/".join(parts[:2]),
            "sha": repository.commit,
            "gated": "manual" if repository.gated else False,
            "siblings": [{"rfilename": name} for name in files],
            "tags": [],
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(about).encode()
    if repository.gated:
        return 403, {"X-Error-Code": "GatedRepo"}, b""
    content = files.get("/".join(parts[4:]))
    if content is None:
        return 404, {"X-Error-Code": "EntryNotFound"}, b""
    tag = hashlib.sha256(content).hexdigest()
    return 200, {"X-Repo-Commit": repository.commit, "ETag": f'"{tag}"'}, content
