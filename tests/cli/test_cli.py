"""The command line: outputs, messages, exit codes."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends import registry
from pdex_gpu.backends.registry import backends
from pdex_gpu.cli import main
from pdex_gpu.cli.parsers import memory_size
from pdex_gpu.pipeline import output
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen
from pdex_gpu.utils.exit_codes import Exit, exit_code

N_PERTURBATIONS = 4


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "screen.h5ad"
    simulate_screen(300, 40, N_PERTURBATIONS, mean_umi=200, seed=3).write_h5ad(path)
    return path


@pytest.fixture
def run(screen: Path, capfd: pytest.CaptureFixture[str]):
    """Run ``pdex-gpu run`` on the screen; give the exit code and what it wrote to stderr."""

    def call(*args: str | Path, source: str | Path = screen, groupby: str = GROUPBY):
        code = main(["run", str(source), "--groupby", groupby, *map(str, args)])
        captured = capfd.readouterr()
        assert captured.out == ""
        return code, captured.err

    return call


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def header(path: Path, sep: str) -> list[str]:
    return [name.strip('"') for name in path.read_text().splitlines()[0].split(sep)]


def broken_copy(screen: Path, folder: Path, edit) -> Path:
    """A copy of the screen, changed by `edit`."""
    path = folder / "edited.h5ad"
    shutil.copy(screen, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


# Outputs


@pytest.fixture(scope="module")
def expected(screen: Path) -> pd.DataFrame:
    return pdex_gpu.differential_expression(str(screen), GROUPBY, progress=False).to_pandas()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv"])
def test_formats_hold_the_same_table(run, tmp_path: Path, expected: pd.DataFrame, suffix: str):
    out = tmp_path / f"de{suffix}"
    assert run("--reference", REFERENCE, "-o", out) == (Exit.OK, "")
    assert leftovers(tmp_path) == [out.name]
    if suffix == ".parquet":
        table = pd.read_parquet(out)
    else:
        sep = {".csv": ",", ".tsv": "\t"}[suffix]
        table = pd.read_csv(out, sep=sep, dtype=str, keep_default_na=False)
    assert list(table.columns) == [
        "target",
        "reference",
        "feature",
        "target_mean",
        "reference_mean",
        "percent_change",
        "fold_change",
        "p_value",
        "statistic",
        "fdr",
        "target_n_cells",
        "reference_n_cells",
        "log2_fold_change",
    ]
    assert len(table) == N_PERTURBATIONS * 40
    for name in table.columns:
        want = expected[name]
        if name in ("target", "reference", "feature"):
            assert table[name].astype(str).tolist() == want.astype(str).tolist()
        else:
            got = np.array([float(value) for value in table[name]])
            np.testing.assert_array_equal(got, want.to_numpy(), err_msg=name)


def test_options_reach_the_test(run, screen: Path, tmp_path: Path):
    out = tmp_path / "de.parquet"
    groups = [
        str(name)
        for name in pdex_gpu.differential_expression(str(screen), GROUPBY, progress=False).targets[
            :2
        ]
    ]
    code, err = run(
        "--groups", groups[0], "--groups", groups[1], "--metric", "t-test", "--welch",
        "--alternative", "less", "--p-values", "asymptotic",
        "--is-log1p", "no", "--threads", "1", "--memory", "64MiB", "-o", out,
    )  # fmt: skip
    assert (code, err) == (Exit.OK, "")
    want = pdex_gpu.differential_expression(
        str(screen),
        GROUPBY,
        groups=groups,
        metric="t-test",
        equal_var=False,
        p_values="asymptotic",
        alternative="less",
        is_log1p=False,
        progress=False,
    )
    got = pd.read_parquet(out)
    np.testing.assert_array_equal(got["p_value"], np.ravel(want["p_value"]))
    assert got["target"].astype(str).unique().tolist() == groups


def test_no_continuity_changes_the_p_values(run, screen: Path, tmp_path: Path):
    out = tmp_path / "de.parquet"
    code, err = run("--no-continuity", "-o", out)
    assert code == Exit.OK
    assert "p-values of metric='wilcoxon' are asymptotic: continuity=False belongs to these" in err
    found = pd.read_parquet(out)["p_value"]
    for same, options in ((False, {}), (True, {"continuity": False})):
        other = pdex_gpu.differential_expression(
            str(screen), GROUPBY, p_values="asymptotic", progress=False, **options
        )
        assert (found == other["p_value"].ravel()).all() == same


def test_existing_output_needs_force(run, tmp_path: Path):
    out = tmp_path / "de.csv"
    out.write_text("precious")
    code, err = run("-o", out)
    assert code == Exit.USAGE
    assert "already exists" in err
    assert "--force" in err
    assert out.read_text() == "precious"
    assert run("-o", out, "--force") == (Exit.OK, "")
    assert header(out, ",")[0] == "target"


def test_module_is_the_command(screen: Path, tmp_path: Path):
    """``python -m pdex_gpu``, in a pipe: complete and silent."""
    out = tmp_path / "de.tsv"
    done = subprocess.run(
        [sys.executable, "-m", "pdex_gpu", "run", screen, "--groupby", GROUPBY, "-o", out],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert header(out, "\t")[0] == "target"


@pytest.mark.sampled(every=2)
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
def test_summary_on_a_terminal(screen: Path, tmp_path: Path, quiet: bool):
    import pty

    ours, theirs = pty.openpty()
    out = tmp_path / "de.parquet"
    command = [sys.executable, "-m", "pdex_gpu", "run", screen, "--groupby", GROUPBY, "-o", out]
    done = subprocess.run([*command, *(["-q"] if quiet else [])], stderr=theirs, check=False)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:  # what Linux gives once the other side is closed
        pass
    os.close(ours)
    assert done.returncode == 0
    assert (b"4 groups x 40 genes" in shown) is not quiet
    assert (b"backend" in shown) is not quiet
    assert not (quiet and shown)


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
def test_resuming_is_said_on_a_terminal(run, tmp_path: Path, monkeypatch, quiet: bool):
    out = tmp_path / "de.csv"
    with monkeypatch.context() as patch:
        patch.setattr("pdex_gpu.stats.multitest.correction.adjust", lambda *_, **__: 1 / 0)
        run("-o", out)
    monkeypatch.setattr("pdex_gpu.cli.help.on_terminal", lambda stream: True)
    code, err = run("-o", out, *(["-q"] if quiet else []))
    assert code == Exit.OK
    lines = [line for line in err.splitlines() if line.startswith("pdex-gpu: ")]
    resuming = f"pdex-gpu: resuming: 40 of 40 genes are done in {tmp_path}/.de.csv.checkpoint"
    assert lines == ([] if quiet else [resuming])


def test_verbose_logs_to_stderr(run, tmp_path: Path):
    code, err = run("-v", "-o", tmp_path / "de.csv")
    assert code == Exit.OK
    assert err.startswith("pdex-gpu: ")


def test_warnings_are_single_lines(run, screen: Path, tmp_path: Path):
    def repeat_a_gene(file: h5py.File) -> None:
        names = file["var"][file["var"].attrs["_index"]]
        if isinstance(names, h5py.Group):  # a nullable string array
            names = names["values"]
        names[1] = names[0]

    source = broken_copy(screen, tmp_path, repeat_a_gene)
    code, err = run("-o", tmp_path / "de.csv", source=source)
    assert code == Exit.OK
    assert re.fullmatch(r"pdex-gpu: warning: .*gene name.*\n", err)


# Errors: one message, the right code, nothing written


@pytest.mark.parametrize(
    ("args", "groupby", "code", "says"),
    [
        (["-o", "de.xlsx"], GROUPBY, Exit.USAGE, "'.xlsx'.*.parquet, .csv, .tsv"),
        (["-o", "missing/de.csv"], GROUPBY, Exit.USAGE, "'missing' does not exist"),
        (["-o", "folder.csv"], GROUPBY, Exit.USAGE, "is a folder"),
        (
            ["-o", "de.csv", "--metric", "wilcox"],
            GROUPBY,
            Exit.USAGE,
            "'--metric'.*'wilcox'.*'wilcoxon'",
        ),
        (["-o", "de.csv", "--memory", "lots"], GROUPBY, Exit.USAGE, "'lots' is not a size"),
        (["-o", "de.csv", "--threads", "0"], GROUPBY, Exit.USAGE, "'0' is not a whole number"),
        (["-o", "de.csv", "--backend", "cpuu"], GROUPBY, Exit.USAGE, "'cpuu'.*'cpu'"),
        (["-o", "de.csv", "--engine", "thread"], GROUPBY, Exit.USAGE, "'thread'.*'threads'"),
        (["-o", "de.csv"], "target_gen", Exit.INPUT, "'target_gen'.*'target_gene'"),
        (["-o", "de.csv", "--reference", "nontargeting"], GROUPBY, Exit.INPUT, "'non-targeting'"),
        (["-o", "de.csv", "--groups", "NOPE"], GROUPBY, Exit.INPUT, "NOPE"),
        (["-o", "de.csv", "--layer", "logs"], GROUPBY, Exit.INPUT, "'logs'"),
    ],
)
def test_mistakes(run, tmp_path: Path, monkeypatch, args, groupby, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    got, err = run(*args, groupby=groupby)
    assert re.search(says, err), err
    assert got == code
    assert "Traceback" not in err
    assert leftovers(tmp_path) == ["folder.csv"]


def test_no_output_option(run):
    code, err = run()
    assert code == Exit.USAGE
    assert err == "pdex-gpu: error: Missing option '--output' / '-o'. See: pdex-gpu run --help\n"


def test_output_is_the_input(run, screen: Path, tmp_path: Path):
    source = tmp_path / "really_hdf5.csv"
    shutil.copy(screen, source)
    before = source.read_bytes()
    code, err = run("-o", source, "--force", source=source)
    assert code == Exit.USAGE
    assert "is the input file" in err
    assert source.read_bytes() == before


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="folder permissions do not bind this user",
)
def test_folder_not_writable(run, tmp_path: Path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    code, err = run("-o", folder / "de.csv")
    assert code == Exit.USAGE
    assert "is not writable" in err


def test_missing_file(run, tmp_path: Path):
    code, err = run("-o", tmp_path / "de.csv", source=tmp_path / "none.h5ad")
    assert code == Exit.INPUT
    assert "none.h5ad" in err
    assert "Traceback" not in err
    assert leftovers(tmp_path) == []


def test_not_hdf5(run, tmp_path: Path):
    source = tmp_path / "text.h5ad"
    source.write_text("target,feature\n" * 100)
    code, err = run("-o", tmp_path / "de.csv", source=source)
    assert code == Exit.INPUT
    assert "text.h5ad" in err
    assert "HDF5" in err
    assert leftovers(tmp_path) == ["text.h5ad"]


def test_truncated(run, screen: Path, tmp_path: Path):
    source = tmp_path / "half.h5ad"
    source.write_bytes(screen.read_bytes()[: screen.stat().st_size // 2])
    code, err = run("-o", tmp_path / "de.csv", source=source)
    assert code == Exit.INPUT
    assert "half.h5ad" in err
    assert leftovers(tmp_path) == ["half.h5ad"]


def test_nan(run, screen: Path, tmp_path: Path):
    def spoil(file: h5py.File) -> None:
        file["X/data"][7] = np.nan

    source = broken_copy(screen, tmp_path, spoil)
    code, err = run("-o", tmp_path / "de.csv", source=source)
    assert code == Exit.INPUT
    assert re.search(r"nan", err, re.IGNORECASE)
    assert re.search(r"GENE\d{5}", err)
    assert re.search(r"cell_\d+", err)
    assert leftovers(tmp_path) == ["edited.h5ad"]


def test_unusable_backend(run, tmp_path: Path):
    unusable = [b for b in backends() if not b.usable]
    if not unusable:
        pytest.skip("every backend can run here")
    code, err = run("--backend", unusable[0].name, "-o", tmp_path / "de.csv")
    assert code == Exit.BACKEND
    assert unusable[0].name in err
    assert leftovers(tmp_path) == []


def test_option_that_the_test_does_not_have(run, tmp_path: Path):
    code, err = run(
        "--metric", "anderson", "--alternative", "less", "-o", tmp_path / "de.csv"
    )  # fmt: skip
    assert code == Exit.USAGE
    assert "alternative" in err
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), Exit.MEMORY),
        (errors.SharedMemoryError("needs 3 GB"), Exit.MEMORY),
        (errors.DeviceMemoryError("needs 3 GB"), Exit.MEMORY),
        (errors.BackendError("no device"), Exit.BACKEND),
        (errors.DeviceLostError("an illegal address"), Exit.BACKEND),
        (errors.MissingDependencyError("install polars"), Exit.BACKEND),
        (errors.OptionError("no such engine"), Exit.USAGE),
        (errors.CheckpointError("of another run"), Exit.USAGE),
        (errors.OutputError("the disk is full"), Exit.DISK),
        (errors.ScratchError("the disk is full"), Exit.DISK),
        (errors.ColumnError("no such column"), Exit.INPUT),
        (errors.LayerError("no such layer"), Exit.INPUT),
        (errors.LabelError("no such group"), Exit.INPUT),
        (errors.DataError("NaN"), Exit.INPUT),
        (errors.FileFormatError("not HDF5"), Exit.INPUT),
        (errors.UnsupportedDataError("float16"), Exit.INPUT),
        (errors.WorkerError("a worker died"), Exit.UNEXPECTED),
        (errors.CoverageError("a gene is missing"), Exit.UNEXPECTED),
        (FileNotFoundError(2, "No such file"), Exit.INPUT),
        (OSError(errno.ENOSPC, "No space left on device"), Exit.UNEXPECTED),
        (ZeroDivisionError("a bug"), Exit.UNEXPECTED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(run, tmp_path: Path, monkeypatch, error: BaseException, code: Exit):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pdex_gpu, "differential_expression", fail, raising=False)
    got, err = run("-o", tmp_path / "de.csv")
    assert got == code
    if isinstance(error, Exception):
        assert exit_code(error) == code
        assert err.startswith("pdex-gpu: error: ")
        assert str(error) in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_notes_are_shown_and_debug_shows_the_traceback(run, tmp_path: Path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        error = errors.DataError("a bad value")
        error.add_note("while reading genes 0 to 9")
        raise error

    monkeypatch.setattr(pdex_gpu, "differential_expression", fail, raising=False)
    _, err = run("-o", tmp_path / "de.csv")
    assert err == "pdex-gpu: error: a bad value\nwhile reading genes 0 to 9\n"
    code, err = run("-o", tmp_path / "de.csv", "--debug")
    assert code == Exit.INPUT
    assert "Traceback (most recent call last)" in err


@pytest.mark.parametrize("existing", [False, True], ids=["new", "replaced"])
def test_no_half_written_file(run, tmp_path: Path, monkeypatch, existing: bool):
    def disk_full(path: Path, *_: object) -> None:
        path.write_text("half a table")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "de.csv"
    if existing:
        out.write_text("precious")
    monkeypatch.setitem(output.WRITERS, ".csv", disk_full)
    code, err = run("-o", out, "--force")
    assert code == Exit.DISK
    assert err == (
        f"pdex-gpu: error: The output '{out}' could not be written: the disk of the folder "
        f"'{tmp_path}' is full. Free up space there, or use another.\nFinished results are kept in "
        f"'{tmp_path}/.de.csv.checkpoint'; the same call resumes from there.\n"
    )
    assert leftovers(tmp_path) == [".de.csv.checkpoint", *(["de.csv"] if existing else [])]
    if existing:
        assert out.read_text() == "precious"
    monkeypatch.undo()
    assert run("-o", out, "--force") == (Exit.OK, "")
    assert leftovers(tmp_path) == ["de.csv"]


@pytest.mark.sampled(every=3)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("SIGINT", Exit.INTERRUPTED),
        ("SIGTERM", Exit.TERMINATED),
        ("SIGHUP", Exit.TERMINATED),
    ],
)
def test_signals_keep_what_was_computed(run, screen: Path, tmp_path: Path, number: str, code: Exit):
    script = """
import os, signal, sys, time
from pdex_gpu import cli
from pdex_gpu.pipeline import output
def slow(path, *_):
    path.write_text("half a table")
    number = signal.Signals[sys.argv[1]]
    try:
        os.kill(os.getpid(), number)
        time.sleep(3600)
    finally:
        if number != signal.SIGINT:  # again, while it cleans up
            os.kill(os.getpid(), number)
output.WRITERS[".csv"] = slow
if sys.argv[1] == "SIGHUP":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup make test` has ignored
sys.exit(cli.main(sys.argv[2:]))
"""
    command = ["run", str(screen), "--groupby", GROUPBY, "-o", str(tmp_path / "de.csv")]
    done = subprocess.run(
        [sys.executable, "-c", script, number, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if number == "SIGINT":
        assert done.stderr.startswith("pdex-gpu: interrupted\nFinished results are kept in ")
    assert leftovers(tmp_path) == [".de.csv.checkpoint"]
    kept = leftovers(tmp_path / ".de.csv.checkpoint")
    assert [name for name in kept if not name.startswith("genes-")] == ["lock", "run.json"]
    code, err = run("-v", "-o", tmp_path / "de.csv")
    assert code == Exit.OK
    assert f"resuming: 40 of 40 genes are done in {tmp_path}" in err
    assert leftovers(tmp_path) == ["de.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_command_under_nohup_goes_on():
    """SIGHUP stays ignored where it was."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pdex_gpu.cli._signals_as_exceptions():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is pdex_gpu.cli._terminate
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# The rest


def test_version(capsys):
    assert main(["--version"]) == Exit.OK
    assert capsys.readouterr().out == f"pdex-gpu {pdex_gpu.__version__}\n"


def test_backends_are_listed_with_reasons(capsys):
    assert main(["backends"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["backend", "usable", "device", "reason"]
    names = [line.split()[0] for line in lines[2:]]
    assert names == [b.name for b in backends()]
    assert {"cpu", "cuda", "numpy"} <= set(names)
    reason = lines[0].index("reason")
    assert all(line[reason:].strip() for line in lines[2:])


def test_output_options_reach_the_call(run, tmp_path: Path, monkeypatch):
    given = {}

    def note(*_: object, **options: object) -> None:
        given.update(options)
        raise errors.BackendError("enough")

    monkeypatch.setattr(pdex_gpu, "differential_expression", note, raising=False)
    out = tmp_path / "de.csv"
    names = ("out", "force", "restart", "spreadsheet_safe", "scratch")
    run("-o", out)
    assert [given.pop(name, None) for name in names] == [out, None, None, None, None]
    run("-o", out, "--force", "--restart", "--spreadsheet-safe", "--scratch", tmp_path)
    assert [given[name] for name in names] == [out, True, True, True, tmp_path]


def test_a_checkpoint_of_another_run(run, tmp_path: Path, monkeypatch):
    out = tmp_path / "de.csv"
    with monkeypatch.context() as patch:
        patch.setattr("pdex_gpu.stats.multitest.correction.adjust", lambda *_, **__: 1 / 0)
        assert run("-o", out)[0] == Exit.UNEXPECTED
    code, err = run("-o", out, "--metric", "t-test")
    assert code == Exit.USAGE
    assert "\n  metric: 'wilcoxon' then, 't-test' now\n" in err
    assert "--restart" in err
    assert run("-o", out, "--metric", "t-test", "--restart") == (Exit.OK, "")
    assert leftovers(tmp_path) == ["de.csv"]


@pytest.mark.parametrize(("folder", "says"), [("none", "does not exist"), ("file", "is a file")])
def test_no_scratch_folder(run, tmp_path: Path, folder: str, says: str):
    (tmp_path / "file").touch()
    code, err = run("-o", tmp_path / "de.csv", "--scratch", tmp_path / folder)
    assert code == Exit.USAGE
    assert re.search(f"scratch folder '.*{folder}' {says}", err)


def test_device_options_reach_the_call(run, tmp_path: Path, monkeypatch):
    given = {}

    def note(*_: object, **options: object) -> None:
        given.update(options)
        raise errors.BackendError("enough")

    monkeypatch.setattr(pdex_gpu, "differential_expression", note, raising=False)
    run("-o", tmp_path / "de.csv")
    assert given.keys().isdisjoint({"device", "device_memory"})
    run("-o", tmp_path / "de.csv", "--device", "1", "--device-memory", "8GiB")
    assert (given["device"], given["device_memory"]) == (1, 8 * 2**30)


@pytest.mark.parametrize("device", ["-1", "a", "1.0"])
def test_no_number_of_a_device(run, tmp_path: Path, device: str):
    code, err = run("-o", tmp_path / "de.csv", f"--device={device}")
    assert code == Exit.USAGE
    assert "is not a device number" in err


def test_compile(monkeypatch, capsys):
    """What it compiles is tested in test_cuda_device.py."""
    asked = []

    def compile_kernels(device: int | None, architectures: list[str]) -> list:
        asked.append((device, architectures))
        return [("sort", "sm_90", True), ("moments", "sm_90", False)]

    monkeypatch.setattr(registry, "compile_kernels", compile_kernels)
    assert main(["backends", "--compile"]) == Exit.OK
    assert main(["backends", "--compile", "--device", "1"]) == Exit.OK
    assert main(["backends", "--compile", "--arch", "sm_80,9.0", "--arch", "120"]) == Exit.OK
    assert asked == [(None, []), (1, []), (None, ["sm_80", "sm_90", "sm_120"])]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["sort", "sm_90", "compiled"]
    assert lines[3].split() == ["moments", "sm_90", "cached"]


def test_compile_without_a_device(monkeypatch, capsys):
    def compile_kernels(*_: object) -> list:
        raise errors.BackendError("The CUDA backend cannot run here: no device.")

    monkeypatch.setattr(registry, "compile_kernels", compile_kernels)
    assert main(["backends", "--compile"]) == Exit.BACKEND
    err = capsys.readouterr().err
    assert "no device." in err
    assert "--arch sm_90" in err
    assert main(["backends", "--compile", "--arch", "90"]) == Exit.BACKEND
    assert "--arch" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--arch", "90"], "are only valid with --compile"),
        (["--device", "0"], "are only valid with --compile"),
        (["--compile", "--arch", "volta"], "'volta' is not a CUDA architecture"),
        (["--compile", "--arch", "sm_90", "--device", "0"], "Pass only one"),
    ],
)
def test_compile_usage(args: list[str], says: str, capsys):
    assert main(["backends", *args]) == Exit.USAGE
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("4GB", 4 * 10**9), ("1.5k", 1500), ("512MiB", 512 * 2**20), ("2 gi", 2 * 2**30)],
)
def test_memory_size(text: str, size: int):
    assert memory_size(text) == size
