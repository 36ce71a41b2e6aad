"""The container images: really built and run, where a tool for that is found.

Chroots stand in for containers, so what needs an engine is not seen here: the GPU, published ports
and volumes. `make test-images` runs this.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pdex_gpu

pytestmark = pytest.mark.image

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
TARGETS = ("cpu", "cpu-notebook")
SKIP = 77

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


@pytest.fixture(scope="session")
def inspect(images: list[str]) -> Callable[[str], dict[str, object]]:
    state = Path(os.environ.get("IMAGE_CHECK_DIR", "/tmp/image_check"))

    def call(tag: str) -> dict[str, object]:
        done = subprocess.run(
            ["buildah", "--root", state / "store", "--runroot", state / "run",
             "--storage-driver", "vfs", "inspect", "--type", "image", tag],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)["Docker"]["config"]

    return call


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


# What is asked of an image, by name, in one container each: making one takes longest.
INSIDE = {
    "cpu": {
        "user": "id -u",
        "open to any user": "stat -c %a /data $HOME",
        "caches": "echo $NUMBA_CACHE_DIR",
        "demo": "pdex-gpu demo --cells 2000 --genes 200 --perturbations 10",
        "shared memory": (
            "before=$(ls /dev/shm | wc -l); pdex-gpu run pdex-gpu-demo/screen.h5ad "
            "--groupby target_gene --engine threads -o r.parquet; "
            "echo $(( $(ls /dev/shm | wc -l) - before ))"
        ),
    },
    "cpu-notebook": {
        "with arguments": "notebook --version",
        "tools": "for tool in gcc cc make nvcc hatchling uv; do command -v $tool; done; true",
        "leavings": (
            "ls -d /src /wheels /opt/build /root/.cache /home/pdex/.cache /opt/pdex_gpu/bin/pip "
            "2>/dev/null; true"
        ),
        "installed": (
            'python -c "import importlib.metadata as m; '
            "print(*{f'{d.name}=={d.version}' for d in m.distributions()})\""
        ),
        "empty token": "JUPYTER_TOKEN= notebook 2>&1; echo $?",
        "short token": "JUPYTER_TOKEN=123456789012345 notebook 2>&1; echo $?",
        "nobody answers": "JUPYTER_PORT=9 notebook-health 2>&1; echo $?",
        "notebook": (
            "cd $HOME/notebooks && jupyter nbconvert --log-level ERROR --to notebook --execute "
            "--stdout quickstart.ipynb 2>/dev/null"
        ),
    },
}
MARK = "---- "


@pytest.fixture(scope="session")
def inside(images: list[str], check: Check) -> dict[str, str]:
    """What was said to each question."""
    told = {}
    for target, tag in zip(TARGETS, images, strict=True):
        script = "\n".join(
            f"echo '{MARK}{name}'\n( cd /data; {words} )\necho"
            for name, words in INSIDE[target].items()
        )
        for part in ("\n" + check("run", tag, "bash", "-c", script).stdout).split("\n" + MARK)[1:]:
            name, _, text = part.partition("\n")
            told[name] = text.strip("\n")
    assert set(told) == {name for asked in INSIDE.values() for name in asked}
    return told


def test_it_runs_the_demo_as_another_user_than_root(inside: dict[str, str]):
    assert inside["user"] == "1000"
    assert "10 of 10 perturbations have their own gene down" in inside["demo"]


def test_the_entry_point_is_pdex_gpu(images: list[str], check: Check, inside: dict[str, str]):
    assert "Usage: pdex-gpu" in check("run", images[0]).stdout
    assert pdex_gpu.__version__ in inside["with arguments"]


def test_another_user_may_be_given(inside: dict[str, str]):
    """As with ``--user 12345:12345``: home, caches and data can be written by anyone."""
    assert inside["open to any user"].split() == ["777", "777"]
    assert inside["caches"].startswith("/home/pdex/")


def test_nothing_that_builds_is_left_inside(inside: dict[str, str]):
    assert inside["tools"] == ""
    assert inside["leavings"] == ""


def test_what_is_installed_is_what_the_lock_file_says(inside: dict[str, str]):
    installed = {_plain(entry) for entry in inside["installed"].split()}
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


def test_shared_memory_is_not_needed(inside: dict[str, str]):
    """Docker's default is 64 MB; with threads a run touches none of it."""
    assert inside["shared memory"].split()[-1] == "0"


def test_the_health_check_of_the_plain_image(images: list[str], check: Check):
    assert check("health", images[0]).returncode == 0


# --- notebooks ------------------------------------------------------------------------------

PORT = 8888
TOKEN = "a-token-for-this-test-only"


def get(path: str, token: str | None = None, timeout: float = 10) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}")
    if token:
        request.add_header("Authorization", f"token {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture(scope="module")
def lab(images: list[str], check: Check, tools: Callable[[str], Path]) -> Iterator[None]:
    """JupyterLab of the notebook image."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is in use on this machine")
    server = subprocess.Popen(
        [str(tools("image_check")), "run", images[1],
         "env", f"JUPYTER_TOKEN={TOKEN}", "dumb-init", "--", "notebook"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                get("/api", timeout=2)
                break
            except OSError:
                assert server.poll() is None, server.communicate()[0]
                assert time.monotonic() < deadline, "JupyterLab did not answer within 90 s"
                time.sleep(0.5)
        yield
    finally:
        # The chroot shares the machine's processes, and the server is one of another session.
        subprocess.run(["pkill", "-f", f"jupyter-lab.*--port={PORT}"], check=False)
        server.communicate(timeout=60)


def test_jupyterlab_answers_to_those_with_the_token(lab: None):
    status, page = get("/lab", TOKEN)
    assert status == 200
    assert b"JupyterLab" in page
    assert get("/api/contents")[0] == 403
    assert get("/api/contents", "a-token-that-is-wrong")[0] == 403
    status, found = get("/api/contents/notebooks", TOKEN)
    assert status == 200
    notebooks = {entry["name"] for entry in json.loads(found)["content"]}
    assert notebooks == {path.name for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}


def test_the_health_check_of_the_notebook_image(lab: None, images: list[str], check: Check):
    assert check("health", images[1]).returncode == 0


def test_a_health_check_without_a_server_says_so(inside: dict[str, str]):
    said, code = inside["nobody answers"].rsplit("\n", 1)
    assert code == "1"
    assert "does not answer on port 9" in said


@pytest.mark.parametrize(("case", "length"), [("empty token", 0), ("short token", 15)])
def test_a_weak_token_is_refused(case: str, length: int, inside: dict[str, str]):
    assert inside[case].startswith(f"JUPYTER_TOKEN has {length} characters")
    assert inside[case].endswith("\n2")


def test_a_notebook_executes(inside: dict[str, str]):
    cells = json.loads(inside["notebook"])["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert all(output["output_type"] != "error" for output in outputs)


def test_sizes_are_reported(
    images: list[str], record_testsuite_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    state = Path(os.environ.get("IMAGE_CHECK_DIR", "/tmp/image_check"))
    done = subprocess.run(
        ["buildah", "--root", state / "store", "--runroot", state / "run", "--storage-driver",
         "vfs", "images", "--json"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    sizes = {name: entry["size"] for entry in json.loads(done.stdout)
             for name in entry.get("names") or ()}  # fmt: skip
    for tag in images:
        size = sizes[f"localhost/{tag}"]
        record_testsuite_property(f"size {tag}", size)
        with capsys.disabled():
            sys.stdout.write(f"\n{tag}: {size}")
