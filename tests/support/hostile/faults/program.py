"""The program that is disturbed: it has all imported, and forks itself for each call.

Its commands are lines of JSON on standard input; the answers, too. It has a mount namespace of its
own where it may, with an empty /dev/shm and a small disk, so that what is left there is its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

GROUPBY, REFERENCE = "target_gene", "non-targeting"
N_GENES = 80


def main() -> None:
    """Carry out commands until there are no more."""
    _warm(*sys.argv[1:])
    main = sys.modules["__main__"]
    main.__spec__ = None  # workers need nothing of this program, so they do not import it
    del main.__file__
    _say(ready=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "mount":
            _say(code=subprocess.run(asked["command"], check=False).returncode)
            continue
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            os.setsid()
            _streams(Path(asked["printed"]))
            sys.exit(_called(asked))
        _say(pid=pid)
        _, status = os.waitpid(pid, 0)
        _say(code=os.waitstatus_to_exitcode(status))


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _warm(metric: str, storage: str, out: str, command: str) -> None:
    """Import all that calls need, and load the compiled kernels: by a call."""
    import pdex_gpu

    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        store(storage, Path(folder), 0)
        data = screen(storage, 0)
        if not storage.startswith("memory"):
            data = path_of(storage, Path(folder))
        pdex_gpu.differential_expression(
            data, GROUPBY, reference=REFERENCE, metric=metric, engine="serial", progress=False,
            out=Path(folder, f"warm{out}") if out else None,
        )  # fmt: skip
    if command:
        from pdex_gpu.cli.app import make_app

        make_app()


def _streams(printed: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for theirs, ours in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(theirs, ours)
    os.close(nothing)
    os.close(out)


def screen(storage: str, seed: int) -> Any:
    """A screen in memory, of a few values for each gene and group."""
    import numpy as np
    from scipy import sparse

    from pdex_gpu.simulate import simulate_screen

    adata = simulate_screen(
        360, N_GENES, 5, mean_umi=300, control_fraction=0.3, seed=seed
    ).to_anndata()
    kinds = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": _dense}
    adata.X = kinds[storage.split()[-1]](adata.X.astype(np.float32))
    return adata


def _dense(matrix: Any) -> Any:
    return matrix.toarray()


def store(storage: str, folder: Path, seed: int) -> None:
    """Write a screen to the file of its storage, if it is in one."""
    if storage.startswith("memory"):
        return
    adata = screen(storage, seed)
    path = path_of(storage, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, on formats
        if storage.startswith("zarr"):
            adata.write_zarr(path)
        else:
            adata.write_h5ad(path)


def path_of(storage: str, folder: Path) -> Path:
    """Where the screen is."""
    return folder / ("screen.zarr" if storage.startswith("zarr") else "screen.h5ad")


def _called(asked: dict[str, Any]) -> int:
    """Make the call, and write what came of it; an exit code."""
    folder, case = Path(asked["folder"]), asked["case"]
    answer = Path(asked["answer"])
    _limit(asked.get("limit"))
    if case["command"]:
        return _commanded(case, folder, asked)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _differential(case, folder, asked)
    except BaseException as error:
        _lift()
        answer.write_text(json.dumps(_told(error)))
        return 1
    answer.write_text(json.dumps({"digest": found}))
    return 0


def _told(error: BaseException) -> dict[str, Any]:
    from pdex_gpu.errors import PdexGpuError

    return {
        "name": type(error).__name__,
        "ours": isinstance(error, PdexGpuError),
        "text": f"{type(error).__module__}: {error}",
    }


def _limit(limit: dict[str, Any] | None) -> None:
    if limit is None:
        return
    kind = getattr(resource, limit["kind"])
    amount = limit["amount"]
    if limit["kind"] == "RLIMIT_AS":
        amount += 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    if limit["kind"] == "RLIMIT_NOFILE":
        amount += len(os.listdir("/proc/self/fd"))
    resource.setrlimit(kind, (amount, resource.getrlimit(kind)[1]))


def _lift() -> None:
    """Give back what was limited, so that the answer can be written."""
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_NOFILE):
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, most))


def _options(case: dict[str, Any]) -> dict[str, Any]:
    options = dict(case["options"])
    if options["comparison"] != "pairs":
        options["reference"] = REFERENCE if options["comparison"] == "reference" else None
    else:
        names = _targets()
        options["pairs"] = [(names[0], REFERENCE), (names[1], names[0]), (names[2], REFERENCE)]
    options["backend"] = "cuda" if case["engine"] == "streams" else "cpu"
    return options | {"engine": case["engine"]}


def _targets() -> list[str]:
    labels = screen("memory csr", 0).obs[GROUPBY]
    return sorted(str(x) for x in set(labels) if x != REFERENCE)


def _emulated(case: dict[str, Any]) -> Any:
    if case["engine"] != "streams":
        return
    import pytest
    from emulated.backend import EmulatedCuda

    EmulatedCuda().install(pytest.MonkeyPatch())


def _cluster(case: dict[str, Any], folder: Path) -> Any:
    if case["engine"] != "dask":
        return nullcontext()
    import dask
    from dask_clusters import cluster

    dask.config.set(
        {
            "temporary-directory": str(folder / "dask"),
            "distributed.deploy.lost-worker-timeout": 3600,
        }
    )
    return cluster(2 if case["whom"] == "worker" else 1, processes=True)


def _differential(case: dict[str, Any], folder: Path, asked: dict[str, Any]) -> str | None:
    import numpy as np

    import pdex_gpu
    from pdex_gpu.results.schema import VALUES

    _emulated(case)
    options = _options(case)
    if case["out"]:
        out = Path(asked["at"]) / f"de{case['out']}"
        options |= {"out": out, "restart": asked.get("restart", False)}
    with _cluster(case, folder) as client:
        if client is not None:
            options["client"] = client
        data: Any = screen(case["storage"], 0)
        if not case["storage"].startswith("memory"):
            data = path_of(case["storage"], folder)
        if case["storage"].startswith("backed"):
            import anndata

            data = anndata.read_h5ad(data, backed="r")
        Path(asked["begun"]).touch()
        found = pdex_gpu.differential_expression(data, GROUPBY, progress=False, **options)
    if case["out"]:
        return hashlib.sha256(out.read_bytes()).hexdigest() if out.exists() else None
    digest = hashlib.sha256()
    for name in VALUES:
        digest.update(np.ascontiguousarray(found[name], np.float64).tobytes())
    return digest.hexdigest()


def _commanded(case: dict[str, Any], folder: Path, asked: dict[str, Any]) -> int:
    from pdex_gpu.cli import main as command

    _emulated(case)
    out = Path(asked["at"]) / f"de{case['out']}"
    words = ["run", str(path_of(case["storage"], folder)), "-o", str(out), "--groupby", GROUPBY]
    for name, value in _options(case).items():
        if name == "pairs":
            words += [x for pair in value for x in ("--pairs", ":".join(pair))]
        elif value is not None:
            words += [f"--{_WORDS.get(name, name).replace('_', '-')}", str(value)]
    words += ["--quiet", "--json", *(["--restart"] if asked.get("restart") else [])]
    Path(asked["begun"]).touch()
    return command(words)


_WORDS = {"n_workers": "workers"}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under `nohup`, too
    main()
