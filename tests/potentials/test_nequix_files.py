"""Files of Nequix: what is read, what is refused, and where releases come from."""

import hashlib
import io
import json
import os
import pickle
import urllib.error
import urllib.request

import jax
import nequix_files
import numpy as np
import pytest

from phojax.checks import InputError
from phojax.potentials.nequix import download, nequix

CONFIG = nequix_files.CONFIG
WHOLE = nequix_files.content()


@pytest.fixture
def refused(tmp_path):
    """Return a function that writes a file and returns how nequix refuses it."""

    def refusal(content: bytes) -> str:
        (tmp_path / "odd.nqx").write_bytes(content)
        with pytest.raises(InputError) as caught:
            nequix(tmp_path / "odd.nqx")
        assert "odd.nqx" in str(caught.value)
        return str(caught.value)

    return refusal


def test_every_number_of_the_file_is_used(tmp_path):
    (tmp_path / "x.nqx").write_bytes(WHOLE)
    made = nequix(tmp_path / "x.nqx")
    arrays = nequix_files.leaves()
    assert sum(x.size for x in jax.tree.leaves(made.params)) == sum(x.size for x in arrays)
    assert made.cutoff == CONFIG["cutoff"]
    assert made.smoothing_width == 0
    assert hashlib.sha256(WHOLE).hexdigest() in made.provenance


def test_files_of_equal_sizes_share_a_compilation(tmp_path):
    for seed in (0, 1):
        content = nequix_files.content(arrays=nequix_files.leaves(seed=seed))
        (tmp_path / f"{seed}.nqx").write_bytes(content)
    one, other = (nequix(tmp_path / f"{seed}.nqx") for seed in (0, 1))
    assert one.energy == other.energy
    assert hash(one.energy) == hash(other.energy)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.999])
def test_truncated(refused, share):
    assert refused(WHOLE[: int(share * len(WHOLE))])


def test_more_than_there_should_be(refused):
    extra = nequix_files.content(arrays=[*nequix_files.leaves(), np.zeros(3)])
    assert "goes on after" in refused(extra)
    assert "goes on after" in refused(WHOLE + b"\n")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm-done",)


def test_pickles_are_refused_unread(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = WHOLE.split(b"\n")[0] + b"\n"
    packed = io.BytesIO()
    np.save(packed, np.array([Harmful()], dtype=object), allow_pickle=True)
    assert "atom_energies cannot be read" in refused(line + packed.getvalue())
    assert refused(line + pickle.dumps(Harmful()))
    assert refused(pickle.dumps(Harmful()))
    assert not (tmp_path / "harm-done").exists()


def test_wrong_shapes_and_kinds(refused):
    arrays = nequix_files.leaves()
    for k, odd in ((0, np.zeros(4)), (3, arrays[3].T[:1]), (-1, np.zeros((8, 1), int))):
        other = list(arrays)
        other[k] = odd
        assert "real numbers of shape" in refused(nequix_files.content(arrays=other))
    arrays[5] = np.full_like(arrays[5], np.nan)
    assert "not finite" in refused(nequix_files.content(arrays=arrays))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("index_weights", True),
        ("layer_norm", False),
        ("radial_mlp_layers", 3),
        ("n_layers", 1),
        ("lmax", -1),
        ("lmax", 1),
        ("lmax", 2.0),
        ("cutoff", 0.0),
        ("cutoff", "6"),
        ("avg_n_neighbors", -1.0),
        ("radial_polynomial_p", 2.5),
        ("radial_mlp_size", 10**9),
        ("scale", float("nan")),
        ("hidden_irreps", "8x0e + 6x1e + 5x2e"),
        ("hidden_irreps", "8x0e + 5x2e"),
        ("hidden_irreps", None),
        ("atomic_numbers", []),
        ("atomic_numbers", [11, 11, 17]),
        ("atomic_numbers", [0, 11, 17]),
        ("atomic_numbers", [8, 11]),
    ],
)
def test_other_architectures(refused, key, value):
    assert refused(nequix_files.content({**CONFIG, key: value}, nequix_files.leaves()))


def test_missing_keys(refused):
    for key in set(CONFIG) - {"kernel", "mlp_init_scale"}:
        config = {k: v for k, v in CONFIG.items() if k != key}
        assert f"lacks {key}" in refused(nequix_files.content(config, nequix_files.leaves()))
    for line in (b"[1]\n", b"no json\n", b'"x"\n', b"\xff\xfe\n"):
        assert "JSON object" in refused(line + WHOLE)


def test_neither_file_nor_release(tmp_path):
    for source in (tmp_path / "absent.nqx", "oam-2", tmp_path):
        with pytest.raises(InputError, match="a file that exists, or one of oam-1-pft"):
            nequix(source)


class Answer(io.BytesIO):
    headers: dict[str, str]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A cache folder, a release of WHOLE, and a stand-in for the network that counts calls."""
    monkeypatch.setenv("PHOJAX_CACHE", str(tmp_path / "cache"))
    release = download.Release("https://example.org/x.nqx", hashlib.sha256(WHOLE).hexdigest())
    monkeypatch.setitem(download.RELEASES, "oam-1-pft", release)
    calls, sent = [], {"content": WHOLE}

    def urlopen(address, timeout):
        assert timeout > 0
        calls.append(address)
        if isinstance(sent["content"], Exception):
            raise sent["content"]
        answer = Answer(sent["content"])
        answer.headers = {"Content-Length": str(len(WHOLE))}
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return tmp_path / "cache", calls, sent


def test_a_release_is_fetched_once(server, capsys):
    folder, calls, _ = server
    assert nequix().name == "nequix:oam-1-pft"
    assert "Nequix oam-1-pft" in capsys.readouterr().err
    nequix("oam-1-pft")
    assert calls == ["https://example.org/x.nqx"]
    assert [file.name for file in folder.iterdir()] == ["nequix-oam-1-pft.nqx"]
    assert (folder / "nequix-oam-1-pft.nqx").read_bytes() == WHOLE


@pytest.mark.parametrize("content", [WHOLE[:-1], WHOLE + b" ", b"<html>", b""])
def test_what_is_not_the_release_is_not_kept(server, content):
    folder, _, sent = server
    sent["content"] = content
    with pytest.raises(InputError, match=r"sent a file with the SHA-256 \w{64}; expected \w{64}"):
        nequix()
    assert not list(folder.iterdir())


def test_without_a_network_the_error_says_what_to_do(server):
    folder, _, sent = server
    sent["content"] = urllib.error.URLError("no route")
    with pytest.raises(InputError) as caught:
        nequix()
    for part in ("https://example.org/x.nqx", "nequix-oam-1-pft.nqx", "no route",
                 download.RELEASES["oam-1-pft"].sha256):  # fmt: skip
        assert part in str(caught.value)
    assert not list(folder.iterdir())


def test_a_damaged_cache_is_noticed(server):
    folder, calls, _ = server
    folder.mkdir()
    (folder / "nequix-oam-1-pft.nqx").write_bytes(WHOLE[:-1])
    with pytest.raises(InputError, match="Delete it to have it fetched again"):
        nequix()
    assert not calls


def test_a_cache_that_cannot_be_written(server, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PHOJAX_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match="could not be fetched"):
        nequix()


def test_releases_without_a_checksum_are_not_fetched(server):
    _, calls, _ = server
    with pytest.raises(InputError, match="no checksum is known for Nequix mp-1;"):
        nequix("mp-1")
    assert not calls


def test_cache_folder(monkeypatch):
    monkeypatch.delenv("PHOJAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(download.cache_folder()) == "/somewhere/phojax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert download.cache_folder() == download.pathlib.Path("~/.cache/phojax").expanduser()


def test_checksums_of_the_releases(shared):
    lines = (shared / "models" / "SHA256SUMS").read_text().split()
    listed = dict(zip(lines[1::2], lines[::2], strict=True))
    known = {f"nequix-{k}.nqx": r.sha256 for k, r in download.RELEASES.items() if r.sha256}
    assert known == listed


def test_first_line_of_the_releases_is_as_expected(shared):
    for file in sorted((shared / "models").glob("*.nqx")):
        with file.open("rb") as opened:
            config = json.loads(opened.readline())
        made = nequix(file)
        assert made.elements == frozenset(config["atomic_numbers"])
        assert sum(x.size for x in jax.tree.leaves(made.params)) == 707658
