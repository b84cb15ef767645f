"""`phojax report`: what is on the page, what a browser makes of it, and what it survives."""

import html.parser
import json
import re
import shutil
import subprocess

import jax
import numpy as np
import plotly.graph_objects
import pyarrow
import pyarrow.parquet
import pytest
from ase.build import bulk

from phojax.campaign.report import read_folder, report_page, write_report
from phojax.campaign.report.figures import screen_drawings
from phojax.campaign.report.folder import structure_files
from phojax.campaign.report.learning import correlation_drawing
from phojax.campaign.report.ranking import ranking, why_apart
from phojax.campaign.report.structures import structure_data
from phojax.campaign.report.texts import embedded, plain
from phojax.campaign.transport_files import arrays_of
from phojax.checks import InputError
from phojax.cli import main
from phojax.convert import structure_from_ase
from phojax.io.records import write_modes, write_record
from phojax.md.observed import observed_of_trajectory
from phojax.md.trajectory import Trajectory
from phojax.md.transport import transport
from phojax.md.transport_record import transport_record
from phojax.potentials.catalogue import potential
from phojax.screening.row import row_from_potential
from phojax.screening.settings import PhononSettings

EVIL = "<script>window.evil=1</script><img src=x onerror=alert(1)>\"'&"
UNITS = {"D_A2_ps": "Å²/ps", "msd_axis_mean_20K_A2": "Å²", "acoustic_cutoff_THz": "THz"}
LIMIT = 2e-3


@pytest.fixture(scope="module")
def phonons():
    """Records and arrays of argon at three densities."""
    jax.config.update("jax_enable_x64", True)
    settings = PhononSettings(
        mobile="Ar", temperatures=(10.0, 20.0), supercell_atoms=8, mesh=(3, 3, 3), relax=False,
        width=0.0,
    )  # fmt: skip
    found = {}
    for name, a in (("fcc-1", 5.26), ("fcc-2", 5.28), ("fcc-3", 5.30)):
        crystal = structure_from_ase(bulk("Ar", "fcc", a=a))
        row = row_from_potential(name, crystal, potential("lj:Ar"), settings)
        found[name] = (row.record, row.arrays)
    return found


@pytest.fixture(scope="module")
def moved():
    """Transport of a random walk among atoms at rest: D is known."""
    random = np.random.default_rng(0)
    steps, ions, D, dt = 1200, 8, 0.05, 0.02
    walk = np.cumsum(random.normal(scale=np.sqrt(2 * D * dt), size=(steps, ions, 3)), axis=0)
    rest = np.zeros((steps, ions, 3)) + 0.02 * random.normal(size=(steps, ions, 3))
    places = random.uniform(0, 10, (2 * ions, 3))
    run = Trajectory(
        np.concatenate([walk, rest], axis=1) + places, 10 * np.eye(3),
        np.array([18] * ions + [36] * ions), np.array([39.95] * ions + [83.8] * ions), dt,
    )  # fmt: skip
    return transport(observed_of_trajectory(run, 18, 30.0, spacing=0.25))


def _rows(phonons):
    rows = []
    for n, (name, (record, _)) in enumerate(phonons.items()):
        D = [0.02, 0.005, 0.001][n]
        rows.append({
            "id": name, "formula": "Ar4Kr", "chemical_system": "Ar-Kr", "status": "done",
            "reason": "", "stable": record["stable"], "flags": "",
            "space_group": record["space_group"],
            "space_group_number": record["space_group_number"], "atoms": record["atoms"],
            "msd_axis_mean_10K_A2": record["msd_axis_mean_A2"]["10"]["Ar"],
            "msd_axis_mean_20K_A2": record["msd_axis_mean_A2"]["20"]["Ar"],
            "acoustic_cutoff_THz": record["acoustic_cutoff_THz"],
            "pdos_center_mobile_THz": record["pdos_center_THz"]["Ar"],
            "D_A2_ps": D, "D_low_A2_ps": 0.6 * D, "D_high_A2_ps": 1.4 * D,
            "D_censored": D < LIMIT, "D_detection_limit_A2_ps": LIMIT,
            "D_paper_A2_ps": D + 0.001, "vdos_center_mobile_THz": 1.0 + n,
            "vdos_center_mobile_to_acoustic_cutoff": 1.5 + n, "framework_holds": True,
        })  # fmt: skip
    first = rows[0]
    bare = {"id": "bare", "formula": "ArXe", "chemical_system": "Ar-Xe", "status": "done",
            "stable": True, "flags": "rough_potential", "msd_axis_mean_20K_A2": 0.5,
            "acoustic_cutoff_THz": 1.1}  # fmt: skip
    soft = {**first, "id": "soft", "stable": False, "flags": "imaginary_modes", "D_A2_ps": 9.0}
    molten = {**first, "id": "molten", "framework_holds": False, "D_A2_ps": 8.0}
    evil = {**bare, "id": "evil", "formula": EVIL, "space_group": EVIL, "flags": EVIL,
            "chemical_system": f"Ar-{EVIL}", "msd_axis_mean_20K_A2": 0.4}  # fmt: skip
    lost = {"id": "lost", "formula": "", "status": "rejected", "reason": f"band gap 0 eV {EVIL}"}
    return [*rows[::-1], bare, soft, molten, evil, lost]


@pytest.fixture
def folder(phonons, moved, tmp_path):
    """A folder as a screen leaves it; texts from a database may be anything."""
    out = tmp_path / "screen"
    rows = _rows(phonons)
    table = pyarrow.Table.from_pylist(rows, schema=_schema(rows))
    out.mkdir()
    pyarrow.parquet.write_table(table, out / "table.parquet")
    for name, (record, arrays) in phonons.items():
        place = out / "structures" / name
        run = {"temperatures": {"30": transport_record(moved)}, "flags": [], "notes": []}
        write_record(place / "record.json", {**record, "transport": run, "metadata": {"a": EVIL}})
        write_modes(place / "modes.npz", arrays)
        write_modes(place / "dynamics" / "transport-30K.npz", arrays_of(moved))
    record, arrays = phonons["fcc-1"]
    write_record(
        out / "structures" / "evil" / "record.json", {**record, "notes": [EVIL], "formula": EVIL}
    )
    labels = np.array([[EVIL, "X"]] * len(arrays["path_labels"]))
    write_modes(out / "structures" / "evil" / "modes.npz", {**arrays, "path_labels": labels})
    write_record(out / "screen.json", {
        "source": f"crystals {EVIL}", "potential": "lj:Ar", "mobile": "Ar",
        "temperatures_K": [10, 20], "settings": {"phonons": {"width": 0.0, "what": EVIL}},
        "versions": {"phojax": "0"}, "remarks": ["a remark"],
        "funnel": [{"stage": "read", "count": 41}, {"stage": "stable", "count": 3}],
        "dropped": [{"reason": "band gap 0 eV", "count": 3, "names": ["a", "b", EVIL]}],
        "cost": {"wall_time_s": 1.5},
    })  # fmt: skip
    return out


def _schema(rows):
    kinds = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64()}
    first = {key: value for row in reversed(rows) for key, value in row.items()}
    return pyarrow.schema([
        pyarrow.field(key, kinds.get(type(value), pyarrow.float64()),
                      metadata={b"unit": UNITS.get(key, "").encode()})
        for key, value in first.items()
    ])  # fmt: skip


class _Page(html.parser.HTMLParser):
    """Tables by id as lists of rows of texts, and what elements and links there are."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.links, self.sources = {}, [], [], []
        self._table, self._row = None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found["href"]] if found.get("href") else []
        self.sources += [found["src"]] if found.get("src") else []
        assert not any(name.startswith("on") for name in found)
        if tag == "table" and "id" in found:
            self._table = self.tables.setdefault(found["id"], [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self._table and self._table[-1]:
            self._table[-1][-1] += data


def _page(folder):
    found = read_folder(folder)
    return report_page(found, ranking(found.rows), folder)


def _ids(text):
    return re.findall(r'data-s="([^"]*)"', text)


def test_only_clean_candidates_are_ranked(folder):
    text, problems = _page(folder)
    tables = _Page(text).tables
    ranked = tables["ranked"][1:]
    assert [row[0] for row in ranked] == ["1", "2", "3", "4", "5"]
    # Detected D first, then by displacement; what is below detection is among the latter.
    names = [row[1].rsplit(" ", 1)[-1] for row in ranked]
    assert names[:3] == ["fcc-1", "fcc-2", "bare"]
    assert names[-1] == "fcc-3"
    assert ranked[0][3] == "0.02 (0.012…0.028)"
    assert ranked[-1][3] == "< 0.0014"  # the upper end of its interval
    assert ranked[2][3] == ""
    assert "rough potential" in ranked[2][-1]
    apart = {row[0].rsplit(" ", 1)[-1]: row[2] for row in tables["apart"][1:]}
    assert "unstable" in apart["soft"]
    assert "framework" in apart["molten"]
    assert len(apart) == 2
    assert len(tables["dropped"]) == 2
    assert "Å²/ps" in tables["ranked"][0][3]
    assert any("bare: there is no folder" in problem for problem in problems)


def test_flags_of_a_diffusion_below_detection_set_nothing_apart():
    row = {"stable": True, "flags": "too_short below_detection", "D_A2_ps": 0.01}
    assert why_apart({**row, "D_censored": True, "D_detection_limit_A2_ps": 0.02}) == ""
    assert "too_short" in why_apart({**row, "D_censored": False})
    assert "imaginary" in why_apart({**row, "D_censored": True, "flags": "imaginary_modes"})
    assert "not known" in why_apart({**row, "stable": None, "D_censored": True})


def test_texts_of_files_are_harmless(folder):
    text, _ = _page(folder)
    page = _Page(text)
    assert "img" not in page.tags
    assert "<img src" not in text
    assert "window.evil=1</script>" not in text
    own = [tag for tag in page.tags if tag == "script"]
    structures = len(ranking(read_folder(folder).rows).ranked) + 2
    assert len(own) == 4 + structures  # errors, plotly, index, code
    assert json.loads(embedded({"a": EVIL, "b": "\u2028</script>"}))["a"] == EVIL
    assert "<" not in embedded(EVIL)
    # plotly obeys tags in its labels.
    found = read_folder(folder)
    for one in screen_drawings(found, ranking(found.rows)):
        assert "<img" not in json.dumps([one.data, one.layout])


def test_nothing_is_asked_of_a_server(folder):
    text, _ = _page(folder)
    page = _Page(text)
    assert "default-src 'none'" in text
    assert not page.sources
    assert all(link.startswith(("#", "data:,")) for link in page.links)


def test_figures_are_valid_and_have_units(folder):
    found = read_folder(folder)
    order = ranking(found.rows)
    drawings = {one.name: one for one in screen_drawings(found, order)}
    for one in drawings.values():
        assert one.data, one.missing
        marks = json.loads(re.sub(r'"--\w+"', '"#123456"', json.dumps([one.data, one.layout])))
        figure = plotly.graph_objects.Figure(*marks)  # refuses what plotly does not know
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
    for name in ("diffusion-displacement", "diffusion-vdos", "diffusion-cutoff"):
        axes = drawings[name].layout
        assert "(Å²/ps)" in axes["yaxis"]["title"]["text"]
        assert re.search(r"\((Å²|THz)\)", axes["xaxis"]["title"]["text"])
        by_name = {trace["name"]: trace for trace in drawings[name].data}
        detected = by_name["D, 95 % interval"]
        assert detected["y"] == [0.02, 0.005]
        assert detected["error_y"]["array"] == pytest.approx([0.008, 0.002])
        assert by_name["below this limit"]["y"] == [0.0014]
        assert by_name["below this limit"]["marker"]["symbol"] == "triangle-down"
        assert sorted(by_name["set apart, not ranked"]["y"]) == [8.0, 9.0]
    elements = {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True))
                for trace in drawings["elements"].data}  # fmt: skip
    assert elements["ranked"]["Kr"] == 3
    assert elements["set apart"]["Kr"] == 2
    assert "Ar" not in elements["ranked"]


def test_effective_displacements_stand_beside_harmonic_ones(folder):
    found = read_folder(folder)
    assert not any("effective" in d.name for d in screen_drawings(found, ranking(found.rows)))
    column = "effective_msd_axis_mean_20K_A2"
    rows = [
        {**row, column: 0.9 * row["msd_axis_mean_20K_A2"]}
        if row.get("msd_axis_mean_20K_A2")
        else row
        for row in found.rows
    ]
    drawings = {d.name: d for d in screen_drawings(found, ranking(rows))}
    both = [
        {trace["name"]: trace for trace in drawings[name].data}["D, 95 % interval"]
        for name in ("diffusion-displacement", "diffusion-effective-displacement")
    ]
    assert both[0]["y"] == both[1]["y"]
    np.testing.assert_allclose(both[1]["x"], 0.9 * np.array(both[0]["x"]))
    assert "Å²" in drawings["diffusion-effective-displacement"].layout["xaxis"]["title"]["text"]


def test_without_dynamics_figures_say_why(folder):
    found = read_folder(folder)
    order = ranking([row for row in found.rows if row["id"] == "bare"])
    drawings = {one.name: one for one in screen_drawings(found, order)}
    assert "molecular dynamics" in drawings["diffusion-displacement"].missing
    assert drawings["displacement-cutoff"].data
    assert "phojax learn" in correlation_drawing(found).missing


def test_data_of_a_structure(folder, phonons, moved):
    row = {"id": "fcc-1", "formula": "Ar"}
    data = structure_data(row, structure_files(folder, "fcc-1"), folder, "rank 1", 10**6)
    assert not data["problems"]
    arrays = phonons["fcc-1"][1]
    frequencies = np.array(data["bands"]["y"], float).T
    np.testing.assert_allclose(frequencies, arrays["path_frequencies_THz"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        np.array(data["bands"]["colours"]["coupling"], float).T, arrays["path_coupling"], atol=6e-4
    )
    assert data["bands"]["temperature"] == "20"
    assert set(data["dos"]["y"]) == {"total", "Ar"}
    (run,) = data["runs"]
    assert run["msd"]["fit"]["D"] == pytest.approx(0.05, rel=0.5)
    assert "Å²/ps" in run["said"]
    np.testing.assert_allclose(
        np.interp(4.0, run["msd"]["x"], run["msd"]["y"]["Ar"]), 6 * 0.05 * 4, rtol=0.5
    )
    density, cell = run["density"], 10.0
    assert density["axis"] == "a"
    assert np.shape(density["z"]) == (len(density["y"]), len(density["x"]))
    assert np.mean(density["z"]) == pytest.approx(8 / cell**3, rel=0.05)  # 8 ions
    links = {name: href for name, href, _ in data["files"]}
    assert links["dynamics/transport-30K.npz"] == "./structures/fcc-1/dynamics/transport-30K.npz"
    # Less room: fewer points, all ends of segments among them, and it is said.
    less = structure_data(row, structure_files(folder, "fcc-1"), folder, "", 3000)["bands"]
    assert len(less["x"]) < len(data["bands"]["x"]) == less["of"]
    assert less["ticks"] == data["bands"]["ticks"]
    assert all(any(abs(x - t) < 1e-9 for x in less["x"]) for t, _ in less["ticks"])


def test_numbers_are_rounded():
    assert plain([np.float64(1 / 3), float("nan"), float("inf"), 2.0, True, None]) == [
        0.33333, None, None, 2, True, None,
    ]  # fmt: skip
    values = np.random.default_rng(0).normal(size=(40, 50)) * 10.0 ** np.arange(-25, 25)
    values[3, 30], values[4, 30] = np.nan, np.inf
    found = plain(values)
    assert found[3][30] is None
    assert found[4][30] is None
    known = np.isfinite(values) & (np.abs(values) > 1e-17)
    np.testing.assert_allclose(np.array(found, float)[known], values[known], rtol=5.1e-5)
    assert max(len(repr(x)) for row in found for x in row[10:28] if x is not None) <= 12


def test_damage_is_told_and_survived(folder):
    base = folder / "structures"
    (base / "fcc-1" / "record.json").write_text("{")
    (base / "fcc-2" / "modes.npz").write_bytes(b"PK\x03\x04 no archive")
    (base / "fcc-3" / "dynamics" / "transport-30K.npz").unlink()
    (folder / "screen.json").unlink()
    (folder / "learn").mkdir()
    text, problems = _page(folder)
    for wanted in ("fcc-1: ", "fcc-2: ", "fcc-3: ", "screen.json", "correlations: "):
        assert any(wanted in problem for problem in problems), wanted
    assert "fcc-1/record.json is not JSON" in text
    assert len(_Page(text).tables["ranked"]) == 6


def test_no_id_leads_out_of_the_folder(folder):
    (folder.parent / "secret").mkdir()
    write_record(folder.parent / "secret" / "record.json", {"formula": "secret"})
    for name in ("../../secret", "..", "", "/etc", "a/b"):
        found = structure_files(folder, name)
        assert found.folder is None
        assert found.problems


def test_correlations_and_why_there_is_no_surrogate(folder):
    learn = folder / "learn"
    write_record(learn / "learn.json", {
        "rows": 20, "detected": 4, "below_detection": 16, "surrogate": False,
        "why_untrained": f"4 detected D {EVIL}",
    })  # fmt: skip
    head = "descriptor,kind,target,statistic,value,low,high,p,q,n,n_censored\n"
    rows = [
        "msd_axis_mean_20K_A2,static,D,spearman,0.8,0.6,0.9,0.01,0.02,20,16",
        "vdos_center_mobile_THz,needs_md,D,spearman,-0.9,,,0.01,0.02,20,16",
        'msd_axis_mean_20K_A2,static,D,"pearson, control",0.1,-0.2,0.4,0.5,0.6,20,16',
        'msd_axis_mean_20K_A2,static,D_paper,"pearson, control",0.95,0.9,0.98,0.01,0.02,20,16',
    ]
    (learn / "correlation.csv").write_text(head + "\n".join(rows) + "\n")
    text, _ = _page(folder)
    drawing = correlation_drawing(read_folder(folder))
    bars = drawing.data[0]
    assert bars["y"] == ["msd_axis_mean_20K_A2", "vdos_center_mobile_THz"]  # drawn upwards
    np.testing.assert_allclose(bars["error_x"]["array"], [0.1, 0])
    assert "1 without an interval" in drawing.caption
    assert "0.95 (0.90…0.98)" in text
    assert "Not trained: 4 detected D &lt;script" in text


def test_command(folder, capsys, tmp_path):
    assert main(["report", str(folder)]) == 0
    assert "5 ranked, 2 set apart, 1 dropped" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 4e6
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["report", str(empty)]) == 2
    assert "phojax screen" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert main(["report", str(folder), "--out", str(tmp_path / "page.pdf")]) == 2
    (empty / "table.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="cannot be read"):
        write_report(empty, empty / "report.html")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def _dom(page, place, profile):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={profile}", "--window-size=1200,900",
         "--virtual-time-budget=10000", "--dump-dom", page.as_uri() + place],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_in_a_browser(folder, tmp_path):
    page = folder / "report.html"
    write_report(folder, page)
    dom = _dom(page, "", tmp_path / "profile")
    assert '<pre id="errors" hidden=""></pre>' in dom
    _, _, rest = dom.partition('id="ranked"')
    assert _ids(rest.partition("</table>")[0])[:2] == ["fcc-1", "fcc-2"]
    assert 'href="#s=fcc-1"' in rest
    assert dom.count('class="main-svg"') >= 6  # drawn by plotly
    assert "window.evil=1</script>" not in dom.replace("\\u003c", "<x")

    for name in ("fcc-1", "evil"):
        sheet = _dom(page, f"#s={name}", tmp_path / "profile")
        assert '<pre id="errors" hidden=""></pre>' in sheet
        inside = sheet.partition('<main id="structure">')[2].partition("</main>")[0]
        assert "<h1>" in inside
        assert "Frequency (THz)" in inside
        assert "<img" not in inside
        assert "<script" not in inside
        assert ("MSD (Å²)" in inside) == (name == "fcc-1")
        assert "VDOS" in inside
