"""Databases that are asked over the network: any server of OPTIMADE, OQMD, Materials Project.

The tests of this module ask a server on the same machine (OPTIMADE) and a stand-in of mp-api;
the databases themselves were never asked by them.
"""

from typing import Any
from urllib.parse import unquote, urlparse

from phojax.checks import InputError, fail
from phojax.convert import structure_from_pymatgen
from phojax.io.sources.entries import entry
from phojax.io.sources.metadata import scalars
from phojax.io.sources.optimade import next_link, response_entries
from phojax.io.sources.selection import selection
from phojax.screening.candidates import SOURCE, Candidate

_SECONDS = 60.0  # for one page: large databases think
_MANDATORY = (
    "lattice_vectors", "cartesian_site_positions", "species", "species_at_sites",
    "structure_features", "dimension_types", "nperiodic_dimensions",
)  # fmt: skip
_FIELDS_OF_MP = (
    "material_id", "structure", "formula_pretty", "band_gap", "formation_energy_per_atom",
    "energy_above_hull", "is_stable", "is_metal", "is_gap_direct", "is_magnetic", "theoretical",
    "deprecated", "nsites", "symmetry",
)  # fmt: skip

Found = tuple[list[Candidate], tuple[str, ...]]


def optimade_query(question: str) -> Found:
    """Return the structures that a server of OPTIMADE has, all pages, and remarks.

    Args:
        question: "<address or name>?filter=<filter>", with "&response_fields=<more>" where the
            server keeps its own properties back. Names are those of pymatgen's OptimadeRester
            (oqmd, mp, alexandria, …); without them the server sends what it sends by default.

    Raises:
        InputError: an unknown name, no filter, no answer, or an answer that is an error.
    """
    where, _, rest = question.partition("?")
    # A plus sign stays one: it stands for no blank in the filters people write.
    pairs = (part.partition("=") for part in rest.split("&") if part)
    asked = {name.strip(): unquote(value) for name, _, value in pairs}
    if not asked.get("filter"):
        raise fail(
            f"optimade:{question}",
            "optimade:<address or name>?filter=<filter>",
            'For example optimade:oqmd?filter=elements HAS ALL "Na","Cl"',
        )
    other = sorted(set(asked) - {"filter", "response_fields", "page_limit"})
    if other:
        raise fail(f"{', '.join(other)} in optimade:", "filter, response_fields and page_limit")
    if "response_fields" in asked:
        own = [f for f in asked["response_fields"].split(",") if f]
        asked["response_fields"] = ",".join(dict.fromkeys((*_MANDATORY, *own)))
    return _pages(_address(where), asked, f"optimade:{where}")


def oqmd_query(question: str) -> Found:
    """Return what OQMD has, through OPTIMADE.

    Args:
        question: "Na-P-S", "Na,S", "Na3PS4", or a filter of OPTIMADE.
    """
    is_filter = any(mark in question for mark in ("=", "<", ">", " HAS "))
    text = question if is_filter else selection(question).optimade_filter()
    return _pages(_address("oqmd"), {"filter": text}, "oqmd")


def materials_project_query(question: str) -> Found:
    """Return what the Materials Project has (its summary documents), through mp-api.

    Args:
        question: "Na-P-S", "Na,S", "Na3PS4", or ids "mp-22862,mp-1598". The key of the user is
            taken from MP_API_KEY, as mp-api does.

    Raises:
        InputError: mp-api is not installed, or the query fails.
    """
    ids = [part.strip() for part in question.split(",")]
    if all(part.startswith(("mp-", "mvc-")) for part in ids):
        asked: dict[str, Any] = {"material_ids": ids}
    else:
        what = selection(question)
        if what.formula:
            asked = {"formula": "".join(f"{s}{n if n > 1 else ''}" for s, n in what.formula)}
        elif what.only:
            asked = {"chemsys": "-".join(sorted(what.elements))}
        else:
            asked = {"elements": list(what.elements)}
    MPRester = _mp_rester()
    try:
        with MPRester() as rester:
            documents = rester.materials.summary.search(**asked, fields=list(_FIELDS_OF_MP))
    except Exception as error:  # of the network, of the key, of the query
        raise fail(
            f"the Materials Project does not answer mp:{question} "
            f"({type(error).__name__}: {error})",
            "an answer",
            "Check the network and MP_API_KEY",
        ) from error
    return [_document_of_mp(d) for d in documents], ()


def _document_of_mp(document: Any) -> Candidate:
    def field(name: str) -> Any:
        if isinstance(document, dict):
            return document.get(name)
        return getattr(document, name, None)

    said = {name: field(name) for name in _FIELDS_OF_MP if name not in ("structure", "symmetry")}
    said = {k: v if isinstance(v, bool | int | float | None) else str(v) for k, v in said.items()}
    symmetry = field("symmetry")
    number = symmetry.get("number") if isinstance(symmetry, dict) else getattr(
        symmetry, "number", None
    )  # fmt: skip
    said |= {"space_group_number": number, SOURCE: "Materials Project"}
    name = str(field("material_id") or "")
    return entry(name, lambda: structure_from_pymatgen(field("structure")), scalars(said))


def _mp_rester() -> Any:
    try:
        from mp_api.client import MPRester
    except ImportError as error:
        raise fail(
            "mp-api is not installed",
            "it for sources mp:",
            "pip install 'phojax[materials-project]'",
        ) from error
    return MPRester


def _address(where: str) -> str:
    """Return where the structures of a server are asked for."""
    from pymatgen.ext.optimade import OptimadeRester

    known = OptimadeRester.aliases
    base = known.get(where, where).rstrip("/")
    if urlparse(base).scheme not in ("http", "https"):
        raise fail(
            f"the OPTIMADE server {where!r}", f"an address https://… or one of {', '.join(known)}"
        )
    base = base.removesuffix("/structures")
    return f"{base if base.endswith('/v1') else base + '/v1'}/structures"


def _pages(address: str, asked: dict[str, str], source: str) -> Found:
    import requests

    found: list[Candidate] = []
    seen: set[str] = set()
    with requests.Session() as session:
        while address and address not in seen:
            seen.add(address)
            page = _page(session, address, asked, source)
            # The page is not complete, the query is: no remark on the link.
            entries, _ = response_entries({**page, "links": {}}, source)
            found += entries
            address, asked = next_link(page), {}  # the link repeats the question
    return found, ()


def _page(session: Any, address: str, asked: dict[str, str], source: str) -> dict[str, Any]:
    try:
        answer = session.get(address, params=asked, timeout=_SECONDS)
        page = answer.json()
    except Exception as error:  # of the network, of requests, of JSON
        raise fail(
            f"{source} gives no answer at {address} ({type(error).__name__}: {error})",
            "JSON of OPTIMADE",
            "Check the network; the server may be down",
        ) from error
    if not answer.ok or not isinstance(page, dict) or page.get("errors"):
        errors = page.get("errors") if isinstance(page, dict) else None
        details = "; ".join(
            str(e.get("detail") or e.get("title")) for e in errors or [] if isinstance(e, dict)
        )
        raise InputError(f"{source} refuses the query ({answer.status_code}): {details or address}")
    return page
