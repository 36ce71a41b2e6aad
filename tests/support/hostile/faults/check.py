"""A case carried out, and what came of it judged."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sessions import living, workers

from pdex_gpu import errors

from ..verdict import RIGHT, Verdict
from .draw import Case, draw
from .program import path_of, store
from .started import Hang, Program, may_mount, program

_HANG = 600.0  # seconds after which a call hangs
_ENDED = 300.0  # seconds in which all its processes have ended


@dataclass(frozen=True)
class _Done:
    """How a call ended: its exit code, what it said, and the digest of its table."""

    pid: int
    code: int
    seconds: float
    answer: dict[str, Any]

    @property
    def digest(self) -> str | None:
        found: str | None = self.answer.get("digest")
        return found


def problems(seed: int) -> list[str]:
    """What is wrong with a case; nothing if all is right."""
    return list(verdict(seed).problems)


def verdict(seed: int) -> Verdict:
    """What came of a case."""
    with TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        for part in ("out", "first", "tmp", "dask"):
            (folder / part).mkdir()
        case = draw(seed)
        if case.fault == "small disk" and not may_mount():
            case = replace(case, fault="file size")
        store(case.storage, folder, 0)
        words = case.options["metric"], case.storage, case.out, "command" * case.command
        with program(folder, *words) as started:
            judged = _Judged(case, folder, started)
            try:
                found = list(judged.problems())
            except Hang:
                found = [f"hang: no end in {_HANG:.0f} seconds"]
            finally:
                judged.end()
        return Verdict(judged.outcome, tuple(found))


class _Judged:
    def __init__(self, case: Case, folder: Path, started: Program) -> None:
        self.case, self.folder, self.program = case, folder, started
        self.rng = random.Random(case.seed)
        self.outcome = RIGHT
        self.name = f"de{case.out}"
        self.out = started.seen(folder / "out")
        self.sessions: list[int] = []

    def end(self) -> None:
        """Kill what is left of all calls."""
        for session in self.sessions:
            for pid in living(session):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def problems(self) -> Iterator[str]:
        case = self.case
        first = self._call(self.folder / "first")
        if first.code:
            yield f"needless refusal: undisturbed, {_text(first)}"
            return
        yield from self._left(first, "undisturbed", self.folder / "first", [self.name])
        right = {first.digest}
        if case.fault == "small disk":
            size = int(self._needed() * case.share) // 4096 * 4096 + 4096
            self._mount(size)
        saved = self._save()
        disturbed = self._call(self.folder / "out", limit=self._limit(), disturb=first.seconds)
        if saved is not None:
            right |= self._of_changed_input()
            self._put_back(saved)
        yield from self._wrong_end(disturbed, right)
        yield from self._left(disturbed, "then", self.folder / "out", self._may_stay(disturbed))
        yield from self._wrong_file(right)
        if case.fault == "small disk":
            self.program.mount("-o", "remount,size=64m", str(self.folder / "out"))
        (self.folder / "out").mkdir(exist_ok=True)
        complete = (self.out / self.name).exists() and not self._checkpoint().exists()
        if not case.out or not complete:
            again = self._call(self.folder / "out", restart=saved is not None)
            if again.code:
                yield f"needless refusal: again, {_text(again)}"
            elif again.digest != first.digest:
                yield "wrong table: of the call that was made again"
            yield from self._left(again, "again", self.folder / "out", [self.name])

    # --- calls ---------------------------------------------------------------------------

    def _call(
        self, at: Path, *, limit: Any = None, disturb: float | None = None, restart: bool = False
    ) -> _Done:
        number = len(self.sessions)
        answer, printed, begun = (
            self.folder / f"{what}-{number}" for what in ("answer", "printed", "begun")
        )
        self.program.ask(
            do="call", folder=str(self.folder), at=str(at), answer=str(answer), limit=limit,
            printed=str(printed), begun=str(begun), case=self.case.as_dict(), restart=restart,
        )  # fmt: skip
        pid = self.program.needed()["pid"]
        self.sessions.append(pid)
        ended = None
        while ended is None and not begun.exists():
            ended = self.program.answer(0.001)
        start = time.monotonic()
        if disturb is not None and limit is None and ended is None:
            ended = self._disturb(pid, disturb)
        if ended is None:
            ended = self.program.needed(_HANG)
        seconds = time.monotonic() - start
        found: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(answer.read_text())
        said = printed.read_text(errors="replace") if printed.exists() else ""
        if self.case.command:
            found = _of_command(said)
            out = self.program.seen(at) / self.name
            if not ended["code"]:
                found["digest"] = _digest(out)
        return _Done(pid, ended["code"], seconds, {"printed": said[-800:]} | found)

    def _disturb(self, pid: int, seconds: float) -> dict[str, Any] | None:
        """Wait for the moment, then do it; gives the answer if the call ended before."""
        until = time.monotonic() + self.case.moment * seconds
        latest = time.monotonic() + _HANG
        while time.monotonic() < latest:
            if self.case.file:
                if any(self._checkpoint().glob(self.case.file)):
                    break
            elif time.monotonic() >= until:
                break
            if (ended := self.program.answer(0.002)) is not None:
                return ended
        fault, number = self.case.fault, signal.Signals[self.case.number]
        with suppress(ProcessLookupError):
            if fault == "folder removed":
                shutil.rmtree(self.folder / "out", ignore_errors=True)
            elif fault == "checkpoint removed":
                shutil.rmtree(self._checkpoint(), ignore_errors=True)
            elif fault.startswith("input"):
                self._change_input()
            elif self.case.whom == "worker":
                while not (found := workers(pid)):
                    if (ended := self.program.answer(0.005)) is not None:
                        return ended
                os.kill(self.rng.choice(found), number)
            elif self.case.whom == "group":
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        return None

    def _limit(self) -> dict[str, Any] | None:
        share = self.case.share
        amounts = {
            "file size": ("RLIMIT_FSIZE", lambda: int(share * self._size())),
            "address space": ("RLIMIT_AS", lambda: int(share * 4e8)),
            "open files": ("RLIMIT_NOFILE", lambda: int(share * 25)),
        }
        if self.case.fault not in amounts:
            return {"kind": "RLIMIT_CORE", "amount": 0} if self.case.fault == "small disk" else None
        kind, amount = amounts[self.case.fault]
        return {"kind": kind, "amount": amount()}

    def _size(self) -> int:
        """Bytes of the output."""
        return (self.folder / "first" / self.name).stat().st_size

    def _needed(self) -> int:
        """Bytes of the output and its checkpoint, about."""
        return 2 * self._size() + 100_000

    def _mount(self, size: int) -> None:
        self.program.mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder / "out"))

    # --- the input -----------------------------------------------------------------------

    def _save(self) -> Path | None:
        """A copy of the input, if that is what will be changed."""
        if not self.case.fault.startswith("input"):
            return None
        saved = self.folder / "saved"
        saved.mkdir()
        _copy(path_of(self.case.storage, self.folder), saved)
        other = self.folder / "other"
        other.mkdir()
        store(self.case.storage, other, 1)
        return saved

    def _change_input(self) -> None:
        path = path_of(self.case.storage, self.folder)
        if self.case.fault == "input cut":
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            for file in files:
                os.truncate(file, file.stat().st_size // 2)
            return
        other = path_of(self.case.storage, self.folder / "other")
        if path.is_dir():
            path.rename(self.folder / "away")
            shutil.copytree(other, path)
        else:
            shutil.copy(other, self.folder / "new")
            (self.folder / "new").replace(path)

    def _of_changed_input(self) -> set[str | None]:
        """The digest of a table of the other input, which the call may have found whole."""
        if self.case.fault == "input cut":
            return set()
        self._put_back(self.folder / "other")
        at = self.folder / "of-other"
        at.mkdir()
        return {self._call(at).digest}

    def _put_back(self, saved: Path) -> None:
        path = path_of(self.case.storage, self.folder)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        _copy(path_of(self.case.storage, saved), self.folder)

    # --- judgement -----------------------------------------------------------------------

    def _checkpoint(self) -> Path:
        return self.out / f".{self.name}.checkpoint"

    def _wrong_end(self, done: _Done, right: set[str | None]) -> Iterator[str]:
        """The end of the disturbed call: right, an error of ours, or the signal's."""
        case, code = self.case, done.code
        name = done.answer.get("name")
        sent = int(signal.Signals[case.number]) if case.fault == "signal" else None
        if not code:
            removed = done.digest is None and case.fault == "folder removed"
            if done.digest not in right and not removed:
                yield "wrong table: of the call that was disturbed"
            return
        self.outcome = name or case.number
        if code < 0:
            if sent is None or -code != sent or case.whom == "worker":
                yield f"death: by {signal.Signals(-code).name}"
        elif code in (130, 143) and sent is not None and case.command:
            if code != (130 if case.number == "SIGINT" else 143):
                yield f"death: exit code {code}"
        elif name == "KeyboardInterrupt" and case.number == "SIGINT":
            return
        elif name is None:
            yield f"death: {_text(done)}"
        elif not done.answer["ours"]:
            yield f"foreign exception: {_text(done)}"
        elif case.fault == "signal" and case.whom == "parent":
            yield f"needless refusal: {_text(done)}"

    def _may_stay(self, done: _Done) -> list[str]:
        if not self.case.out:
            return []
        if not done.code:
            return [self.name]
        return [self.name, self._checkpoint().name, *([".pdex_gpu."] if done.code == -9 else [])]

    def _wrong_file(self, right: set[str | None]) -> Iterator[str]:
        file = self.out / self.name
        if self.case.out and file.exists() and _digest(file) not in right:
            yield "wrong table: in the file of the call that was disturbed"

    def _left(self, done: _Done, when: str, at: Path, allowed: list[str]) -> Iterator[str]:
        until = time.monotonic() + _ENDED
        while living(done.pid) and time.monotonic() < until:
            time.sleep(0.01)
        for pid in living(done.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            yield f"leak: {when}, the process {command[-150:]}"
        for name in _names(self.program.seen(at)):
            if not any(name == some or (some[-1] == "." and some in name) for some in allowed):
                yield f"leak: {when}, the file {name}"
        places = [self.folder / "tmp"]
        if may_mount():
            places.append(self.program.seen(Path("/dev/shm")))
        for place in places:
            for name in _names(place):
                if self.case.engine == "dask" and name.startswith("sem.mp-"):
                    continue  # of the cluster's own processes, which were killed, too
                yield f"leak: {when}, {name} in {place.name}"


def _copy(path: Path, folder: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, folder / path.name)  # with the times of its files
    else:
        shutil.copy2(path, folder / path.name)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _digest(path: Path) -> str | None:
    """Of a file; None if it is not there, as after its folder was removed."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _of_command(said: str) -> dict[str, Any]:
    """The error of a command, which is the last thing it printed."""
    try:
        error = json.loads(said[said.index("{") :])["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    kind = getattr(errors, error["class"], None)
    ours = isinstance(kind, type) and issubclass(kind, errors.PdexGpuError)
    return {
        "name": error["class"],
        "ours": ours or error["class"] == "UsageError",
        "text": error["message"],
    }


def _text(done: _Done) -> str:
    told = done.answer.get("text") or done.answer["printed"]
    return f"exit code {done.code}, {done.answer.get('name')}: {told}"
