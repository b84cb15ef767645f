"""Released files of Nequix by name: from the cache folder, else from their public address.

Addresses: the nequix package 0.4.5. They name a commit, so what they hold does not change. A file
is used only if it has the SHA-256 known here; those without one are not fetched.
"""

import hashlib
import http.client
import os
import pathlib
import tempfile
import urllib.request
from typing import NamedTuple

from tqdm import tqdm

from phojax.checks import fail

_SECONDS = 30  # without an answer
_REPOSITORY = "https://github.com/atomicarchitects/nequix/raw"
_MP = f"{_REPOSITORY}/7c2854de8e754b1a60274c7d9d2e014989ed632e/models"
_OMAT = f"{_REPOSITORY}/9c852a9c4cce69ae5e75bc5a2cf670be21ff8c28/models"


class Release(NamedTuple):
    """Where a released file is and what it is known by; no checksum where none is known."""

    address: str
    sha256: str | None


RELEASES = {
    "oam-1-pft": Release(
        f"{_OMAT}/nequix-oam-1-pft.nqx",
        "4ce693d68886512aab50c84ea2400efd68163e11155f7c7babe98e695177e809",
    ),
    "mp-1-pft": Release(
        f"{_MP}/nequix-mp-1-pft.nqx",
        "a88aeaed71fd447572dc57af21d469207d7737b85a6dbb66f8c38156f175c5f1",
    ),
    "mp-1": Release(f"{_MP}/nequix-mp-1.nqx", None),
    "mp-1-pft-no-cotrain": Release(f"{_MP}/nequix-mp-1-pft-no-cotrain.nqx", None),
    "omat-1": Release(f"{_OMAT}/nequix-omat-1.nqx", None),
    "oam-1": Release(f"{_OMAT}/nequix-oam-1.nqx", None),
}


def cache_folder() -> pathlib.Path:
    """Return $PHOJAX_CACHE, else phojax/ in $XDG_CACHE_HOME or in ~/.cache."""
    own = os.environ.get("PHOJAX_CACHE")
    if own:
        return pathlib.Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(shared).expanduser() / "phojax"


def released_file(name: str) -> pathlib.Path:
    """Return the file of a release, from the cache folder; downloaded into it if it is not there.

    Raises:
        InputError: a release without a known checksum, no network, or a file that is not the
            released one.
    """
    release = RELEASES[name]
    path = cache_folder() / f"nequix-{name}.nqx"
    if release.sha256 is None:
        raise fail(
            f"no checksum is known for Nequix {name}",
            f"one of {', '.join(k for k, r in RELEASES.items() if r.sha256)}, or a path",
            f"Fetch {release.address} yourself and give the path of the file",
        )
    if not path.is_file():
        _download(name, release, path)
    found = sha256(path)
    if found != release.sha256:
        raise fail(
            f"{path} has the SHA-256 {found}",
            f"{release.sha256}, of Nequix {name}",
            "Delete it to have it fetched again",
        )
    return path


def sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(name: str, release: Release, path: pathlib.Path) -> None:
    """Write the file whole or not at all."""
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(release.address, timeout=_SECONDS) as answer,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file,
            tqdm(
                desc=f"Nequix {name}",
                total=int(answer.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            part = pathlib.Path(file.name)
            while block := answer.read(2**16):
                file.write(block)
                bar.update(len(block))
        found = sha256(part)
        if found != release.sha256:
            raise fail(
                f"{release.address} sent a file with the SHA-256 {found}",
                f"{release.sha256}, of Nequix {name}",
                f"Try again, or put the right file at {path}",
            )
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise fail(
            f"Nequix {name} could not be fetched from {release.address} ({error})",
            f"a network, or the file at {path}",
            f"Fetch it elsewhere, check that its SHA-256 is {release.sha256}, and put it there",
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
