"""The container images: really built and run, where a tool for that is found.

Chroots stand in for containers, so what needs an engine is not seen here: the GPU, published ports
and volumes. `make test-images` runs this.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

import pdex_gpu

pytestmark = pytest.mark.image

DOCKERFILE = ROOT / "docker" / "Dockerfile"
TARGETS = ("cpu", "cpu-notebook")
SKIP = 77

#: Nobody that the images know, as with ``docker run --user 12345:12345``.
STRANGER = "12345:12345"

Check = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def check(tools: Callable[[str], Path]) -> Check:
    """Calls the tool that builds and runs images without an engine; skips where it cannot."""
    tool = tools("image_check")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(tool), *words], cwd=ROOT, capture_output=True, text=True, timeout=1800,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode == SKIP:
            pytest.skip(f"images cannot be built here: {done.stderr.strip()}")
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done

    return call


@pytest.fixture(scope="session")
def images(check: Check, record_testsuite_property: Callable[[str, object], None]) -> list[str]:
    """Tags of the images, in the order of TARGETS."""
    tags = []
    for target in TARGETS:
        tags.append(f"pdex-gpu-test:{target}")
        started = time.perf_counter()
        check("build", str(DOCKERFILE), ".", tags[-1], "--target", target,
              "--build-arg", "REVISION=abc123")  # fmt: skip
        record_testsuite_property(f"seconds {target}", round(time.perf_counter() - started))
    return tags


def buildah(*words: str) -> list[str]:
    """The command line that works on what the tool has built."""
    state = Path(os.environ.get("IMAGE_CHECK_DIR", "/tmp/image_check"))
    return ["buildah", "--root", f"{state / 'store'}", "--runroot", f"{state / 'run'}",
            "--storage-driver", "vfs", *words]  # fmt: skip


def ask(*words: str) -> str:
    """What such a command line shows."""
    done = subprocess.run(buildah(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture(scope="session")
def inspect(images: list[str]) -> Callable[[str], dict[str, Any]]:
    def call(tag: str) -> dict[str, Any]:
        return json.loads(ask("inspect", "--type", "image", tag))["Docker"]["config"]

    return call


class Container:
    """A container of an image, for several commands: one is made faster than many."""

    def __init__(self, tag: str, user: str | None = None) -> None:
        self.name = ask("from", "--pull-never", tag).strip()
        self.user = ["--user", user] if user else []

    def command(self, *words: str, env: Sequence[str] = ()) -> list[str]:
        settings = [word for entry in env for word in ("--env", entry)]
        return buildah("run", "--isolation", "chroot", *self.user, *settings, self.name, "--",
                       *words)  # fmt: skip

    def run(
        self, *words: str, env: Sequence[str] = (), ok: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*words, env=env), capture_output=True, text=True, timeout=timeout,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not ok or done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done

    def remove(self) -> None:
        ask("rm", self.name)


@pytest.fixture(scope="module")
def plain(images: list[str]) -> Iterator[Container]:
    container = Container(images[0])
    yield container
    container.remove()


@pytest.fixture(scope="module")
def notebook(images: list[str]) -> Iterator[Container]:
    container = Container(images[1], STRANGER)
    yield container
    container.remove()


@pytest.mark.parametrize("k", range(len(TARGETS)), ids=TARGETS)
def test_an_image_says_what_it_is(k: int, images: list[str], inspect):
    config = inspect(images[k])
    labels = {name.removeprefix("org.opencontainers.image."): value
              for name, value in config["Labels"].items()}  # fmt: skip
    assert labels["version"] == pdex_gpu.__version__
    assert labels["revision"] == "abc123"
    assert labels["licenses"] == "MIT"
    assert labels["title"] == "pdex_gpu"
    assert labels["description"]
    assert config["User"] == "1000:1000"
    assert list(config["Volumes"]) == ["/data"]
    assert config["Entrypoint"][:2] == ["dumb-init", "--"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert not any("TOKEN" in entry for entry in config["Env"])
    if TARGETS[k] == "cpu":
        assert config["Entrypoint"][2:] == ["pdex-gpu"]
        assert config["WorkingDir"] == "/data"
    else:
        assert list(config["ExposedPorts"]) == ["8888/tcp"]


DEMO = "pdex-gpu demo --cells 2000 --genes 200 --perturbations 10"


def test_it_runs_the_demo_as_another_user_than_root(plain: Container):
    done = plain.run("sh", "-c", f"id -u && pwd && {DEMO} && ls pdex-gpu-demo")
    assert done.stdout.startswith("1000\n/data\n")
    assert "10 of 10 perturbations significantly reduce their own gene" in done.stdout
    assert "results.parquet" in done.stdout


def test_the_entry_point_is_pdex_gpu(images: list[str], check: Check, notebook: Container):
    assert "Usage: pdex-gpu" in check("run", images[0]).stdout
    assert pdex_gpu.__version__ in notebook.run("dumb-init", "--", "notebook", "--version").stdout


def test_another_user_may_be_given(images: list[str]):
    """Home, caches and data can be written by anyone."""
    container = Container(images[0], STRANGER)
    try:
        done = container.run(
            "sh", "-c", f"id -u && {DEMO} && stat -c %u:%g pdex-gpu-demo/results.parquet && "
            "find $NUMBA_CACHE_DIR -name '*.nbi' | head -1",
        )  # fmt: skip
    finally:
        container.remove()
    words = done.stdout.split()
    assert words[0] == "12345"
    assert STRANGER in words
    assert words[-1].startswith("/home/pdex/.cache/numba/")


def test_nothing_that_builds_is_left_inside(images: list[str], check: Check):
    done = check("run", images[1], "sh", "-c",
                 "for tool in gcc cc make nvcc hatchling uv; do command -v $tool; done; "
                 "find /tmp /var/tmp /home/pdex/.cache -mindepth 1; "
                 "ls -d /src /wheels /opt/build /root/.cache "
                 "/opt/pdex_gpu/bin/pip 2>/dev/null; true")  # fmt: skip
    assert done.stdout == ""


def test_what_is_installed_is_what_the_lock_file_says(notebook: Container):
    listing = "import importlib.metadata as m; print(*{f'{d.name}=={d.version}' for d in m.distributions()})"  # fmt: skip  # noqa: E501
    done = notebook.run("python", "-c", listing)
    installed = {_plain(entry) for entry in done.stdout.split()}
    locked = {
        _plain(line.split()[0])
        for name in ("cpu", "notebook")
        for line in (ROOT / "docker" / "locks" / f"{name}.txt").read_text().splitlines()
        if "==" in line and line[0].isalnum()
    }
    assert installed - locked == {f"pdex-gpu=={pdex_gpu.__version__}"}


def _plain(requirement: str) -> str:
    name, version = requirement.split("==")
    return f"{name.lower().replace('_', '-').replace('.', '-')}=={version}"


def test_the_health_check_of_the_plain_image(images: list[str], check: Check):
    assert check("health", images[0]).returncode == 0


WITHOUT_SHARED_MEMORY = """
from pdex_gpu.engines import shared_segments
def refuse():
    raise OSError(28, "no shared memory here")
shared_segments._open_unnamed = refuse
import anndata, pdex_gpu
screen = anndata.read_h5ad("pdex-gpu-demo/screen.h5ad")
for engine in ("threads", "shared_memory"):
    try:
        pdex_gpu.differential_expression(screen, "target_gene", engine=engine, progress=False)
        print(engine, "did it")
    except pdex_gpu.errors.SharedMemoryError as error:
        print(str(error).split(": ")[-1])
"""


def test_shared_memory_is_not_needed(plain: Container):
    """Docker's default is 64 MB; with threads a run does well without any."""
    plain.run("sh", "-c", DEMO)
    done = plain.run("python", "-c", WITHOUT_SHARED_MEMORY)
    assert done.stdout == "threads did it\nno shared memory here. Use engine='threads'.\n"


# --- notebooks ------------------------------------------------------------------------------

TOKEN = "a-token-for-this-test-only"


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that runs; no proxy is asked for what is on this machine."""

    port: int

    def get(self, path: str, token: str | None = None, timeout: float = 10) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"token {token}")
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def descendants(pid: int) -> list[int]:
    """The processes below one, parents first: chroots show those of their containers."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may just have ended
            parent = int(file.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a container as an engine does: its first process is asked to, which passes that on."""
    below = descendants(server.pid)
    init = [pid for pid in below if Path(f"/proc/{pid}/comm").read_text() == "dumb-init\n"]
    try:
        for pid in init:
            os.kill(pid, signal.SIGTERM)
        server.wait(timeout=30)
    finally:
        for pid in (*below, server.pid) if server.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def lab(notebook: Container, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab of the notebook image, on a port that is free: chroots share the machine's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        lab = Lab(probe.getsockname()[1])
    log = tmp_path_factory.mktemp("lab") / "log.txt"
    with log.open("w") as file:
        server = subprocess.Popen(
            notebook.command("dumb-init", "--", "notebook",
                             env=(f"JUPYTER_TOKEN={TOKEN}", f"JUPYTER_PORT={lab.port}")),
            stdout=file, stderr=file, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                lab.get("/api", timeout=2)
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, "JupyterLab did not answer within 120 s"
                time.sleep(0.5)
        yield lab
    finally:
        stop(server)


def test_jupyterlab_answers_to_those_with_the_token(lab: Lab):
    status, page = lab.get("/lab", TOKEN)
    assert status == 200
    assert b"JupyterLab" in page
    assert lab.get("/api/contents")[0] == 403
    assert lab.get("/api/contents", "a-token-that-is-wrong")[0] == 403
    status, found = lab.get("/api/contents/docs/notebooks", TOKEN)
    assert status == 200
    entries = json.loads(found)["content"]
    assert all(entry["writable"] for entry in entries)
    notebooks = {path.name for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert {entry["name"] for entry in entries} == notebooks


def test_the_health_check_of_the_notebook_image(
    lab: Lab, notebook: Container, images: list[str], inspect: Callable[[str], dict[str, Any]]
):
    words = inspect(images[1])["Healthcheck"]["Test"][1:]
    proxy = "http_proxy=http://127.0.0.1:9"  # is not asked
    assert notebook.run(*words, env=(f"JUPYTER_PORT={lab.port}", proxy)).returncode == 0
    wrong = notebook.run(*words, env=("JUPYTER_PORT=9",), ok=False)
    assert wrong.returncode == 1
    assert "does not answer on port 9" in wrong.stderr


# JupyterLab would run on if a token were let through.
BRIEFLY = ("timeout", "30")


@pytest.mark.parametrize("token", ["", "jupyter", "123456789012345"])
def test_a_weak_token_is_refused(token: str, notebook: Container):
    done = notebook.run(*BRIEFLY, "notebook", env=(f"JUPYTER_TOKEN={token}",), ok=False)
    assert done.returncode == 2
    assert f"JUPYTER_TOKEN has {len(token)} characters" in done.stderr


def test_a_weak_token_in_a_file_is_refused(notebook: Container):
    done = notebook.run(*BRIEFLY, "sh", "-c", "echo short > ~/secret && notebook",
                        env=("JUPYTER_TOKEN_FILE=/home/pdex/secret",), ok=False)  # fmt: skip
    assert done.returncode == 2
    assert "JUPYTER_TOKEN has 5 characters" in done.stderr
    done = notebook.run(*BRIEFLY, "notebook", env=("JUPYTER_TOKEN_FILE=/home/pdex/none",), ok=False)
    assert done.returncode == 1
    assert "/home/pdex/none" in done.stderr


@pytest.mark.parametrize("name", ["papalexi", "from_scanpy"])
def test_a_notebook_executes(name: str, notebook: Container):
    done = notebook.run(
        "sh", "-c", "cd $HOME/docs/notebooks && jupyter nbconvert --to notebook --execute "
        f"--output /tmp/done.ipynb {name}.ipynb && cat /tmp/done.ipynb",
    )  # fmt: skip
    cells = json.loads(done.stdout[done.stdout.index("{") :])["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert all(output["output_type"] != "error" for output in outputs)
