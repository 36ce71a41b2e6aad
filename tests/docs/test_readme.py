"""The examples of README.md and of the site's pages, as someone pastes them; what README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from repository import ROOT

README = ROOT / "README.md"
SCREEN = ROOT / "docs" / "data" / "papalexi.h5ad"
RECORDS = ROOT / "benchmarks" / "results"

pytestmark = pytest.mark.skipif(not SCREEN.exists(), reason="not run from a checkout")

#: Programs that do less here.
STAND_INS = {
    # A checkout, as far as README uses it.
    "git": '[ "$1" = clone ] && mkdir -p pdex-gpu/.venv/bin && touch pdex-gpu/.venv/bin/activate '
    f'&& ln -s "{ROOT / "docs"}" pdex-gpu/docs',
    # The environment is the one of the tests.
    "make": '[ "$*" = install ]',
    "pdex-gpu": f'exec "{sys.executable}" -m pdex_gpu "$@"',
}

#: Pages whose blocks all run in a folder with a screen, except those that contain one of the words.
PAGES: dict[str, tuple[str, ...]] = {
    "check_p_values": (), "command_line": (), "comparisons": (), "files": (),
}  # fmt: skip

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block."""
    return _BLOCK.findall(page.read_text("utf-8"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where the programs are those above."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    return home


def run_shell(text: str) -> None:
    """Run a block, and stay in the folder that it leads to."""
    script = f"set -e\n{text}\npwd >&3\n"
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{writer}\n{script}"], pass_fds=[writer],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        where = os.read(reader, 4096).decode().strip()
    finally:
        os.close(reader)
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    os.chdir(where)


def run_blocks(page: Path, names: dict[str, Any]) -> int:
    """Run what a page shows, one block after another; the number of blocks."""
    found = blocks(page)
    for language, text in found:
        if language == "sh":
            run_shell(text)
        else:
            exec(compile(text, str(page), "exec"), names)
    return len(found)


def test_readme_leads_from_a_clone_to_a_volcano_and_hits(folder: Path):
    pytest.importorskip("matplotlib")
    names: dict[str, Any] = {"__name__": "readme"}
    assert run_blocks(README, names) == 3
    made = folder / "pdex-gpu"
    assert Path.cwd() == made
    assert (made / "stat1.png").read_bytes().startswith(b"\x89PNG")
    assert (made / "papalexi.html").stat().st_size > 50_000
    # Papalexi et al. 2021: the four knock-outs of the interferon response share their hits.
    hits = names["hits"]
    for target in ("IFNGR1", "IFNGR2", "JAK2", "STAT1"):
        of_target = hits[hits["target"] == target]
        assert {"STAT1", "UBE2L6", "PSMB9"} <= set(of_target["feature"]), target


def test_a_volcano_takes_at_most_five_commands():
    shell = "".join(text for language, text in blocks(README) if language == "sh")
    commands = shell[: shell.index("stat1.png")].strip().splitlines()
    assert "plot volcano" in commands[-1]
    assert len(commands) <= 5


def test_from_counts_to_hits_in_five_lines():
    (python,) = (text for language, text in blocks(README) if language == "python")
    assert len(list(filter(str.strip, python.splitlines()))) == 5


@pytest.mark.thorough
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of pydeseq2, on few cells
def test_blocks_of_pages_run_as_they_stand(name: str, folder: Path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("pydeseq2")
    import anndata

    from pdex_gpu import differential_expression, simulate

    screen = simulate.simulate_screen(2000, 300, 10, seed=0, annotated=True)
    screen.write_h5ad(folder / "screen.h5ad")
    names = {
        "__name__": name,
        "adata": anndata.read_h5ad(folder / "screen.h5ad"),
        "differential_expression": differential_expression,
    }
    assert run_blocks(ROOT / "docs" / f"{name}.md", names) >= 1
    pyplot.close("all")


# --- links, images, figures -------------------------------------------------------------------


def text() -> str:
    return README.read_text("utf-8")


def repository() -> str:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return str(settings["project"]["urls"]["Source"])


def links() -> list[str]:
    """Where README's links and images lead; those by name, through their definitions."""
    plain = re.sub(r"^```.*?^```$", "", text(), flags=re.M | re.S)
    defined = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", plain, re.M))
    by_name = set(re.findall(r"(?<!!)\[([^\[\]]+)\](?![(:\]])", plain))
    assert by_name == set(defined), by_name ^ set(defined)
    return [*re.findall(r"\]\(([^)\s]+)\)", plain), *defined.values()]


def test_links_are_absolute_and_lead_to_files_of_the_repository():
    home = urlparse(repository()).path
    n_files = 0
    for link in links():
        address = urlparse(link)
        assert address.scheme == "https", link
        if address.netloc not in ("github.com", "raw.githubusercontent.com"):
            continue
        assert address.path.startswith(home + "/"), link
        parts = address.path.removeprefix(home + "/").split("/")
        if address.netloc == "github.com":
            assert parts.pop(0) in ("blob", "tree"), link
        assert parts[0] == "main", link
        assert ROOT.joinpath(*parts[1:]).exists(), link
        n_files += 1
    assert n_files > 20
    assert f"git clone {repository()}.git && cd {repository().rsplit('/', 1)[1]}\n" in text()


def test_images_have_a_text_and_come_from_raw_files():
    images = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text())
    assert images
    for alternative, link in images:
        assert len(alternative) > 20
        assert urlparse(link).netloc == "raw.githubusercontent.com"


def test_readme_is_one_to_two_screens():
    prose = re.sub(
        r"^\[[^\]]+\]: \S+$|^```.*?^```$|\([^)\s]*//[^)\s]+\)", "", text(), flags=re.M | re.S
    )
    assert len(prose.split()) < 700


#: Figures of the records that README rounds, in the order in which it names them.
FIGURES = {
    "cpu-2026-11-22": {
        "pdex 0.1.28": (
            "wilcoxon_log1p_vs_pdex_on_100_genes", "anderson_log1p_vs_pdex_on_100_genes",
        ),
        "scanpy 1.12.4": ("wilcoxon_log1p_vs_scanpy", "t_test_log1p_vs_scanpy"),
        "illico 0.6.0": ("wilcoxon_log1p_vs_illico", "wilcoxon_counts_vs_illico"),
        "hpdex 1.0.1": ("wilcoxon_log1p_vs_hpdex", "wilcoxon_counts_vs_hpdex"),
    },
    "comparisons-2026-11-22": {"pdex 0.3.0": ("rest_log1p_vs_pdex-0.3", "rest_counts_vs_pdex-0.3")},
    "raw_counts-2026-12-01": {"scanpy 1.12.4": ("scanpy_time",)},
}  # fmt: skip


def test_speeds_are_those_of_the_records():
    rows = re.findall(r"^\| (\w+ [\d.]+):? ?[^|]*\|[^|]*\| ([^|]*) \| \[(.+)\] \|$", text(), re.M)
    assert len(rows) == sum(map(len, FIGURES.values()))
    for tool, speeds, name in rows:
        record = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
        package, version = tool.split()
        assert version in {v.get(package) for v in record["versions"].values()}, tool
        shown = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?= \(|,|$)", speeds)
        wanted = [f"{record['figures'][f]['value']:.2g}" for f in FIGURES[name][tool]]
        assert [float(s) for s in shown] == [float(w) for w in wanted], tool
