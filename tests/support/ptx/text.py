"""Reads the text of PTX: its kernels, and their declarations, labels and statements."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\((.*?)\)([^{]*)\{", re.DOTALL)
_PARAMETER = re.compile(r"\.param\s+\.[bufs](\d+)\s+\w+")
_DYNAMIC = re.compile(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\]")
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+).*?(?:inlined_at 1 (\d+)|$)")
_LABEL = re.compile(r"(\$?\w+):\s*")
_REGISTERS = re.compile(r"\.reg \.([a-z]+)(\d*)\s+(.*);")
_VARIABLE = re.compile(r"\.(shared|local) \.align (\d+) \.[bufs](\d+)\s+(\w+)(?:\[(\d+)\])?;")
_STATEMENT = re.compile(r"(?:@(?P<negated>!?)(?P<guard>%\w+)\s+)?(?P<op>[\w.:]+)\s*(?P<rest>.*)")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


class PtxError(Exception):
    """PTX that the device cannot run."""


@dataclass(frozen=True)
class Statement:
    """An instruction as it is written.

    Attributes
    ----------
    text : str
    line : int
        Of the CUDA source.
    guard : str or None
        The predicate of ``@%p1``; `negated` with ``@!%p1``.
    parts : tuple of str
        Of the opcode, such as ``("ld", "global", "u32")``.
    operands : tuple of str
    """

    text: str
    line: int
    guard: str | None
    negated: bool
    parts: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """A variable in shared or local memory."""

    name: str
    space: str
    alignment: int
    n_bytes: int


@dataclass
class Entry:
    """A kernel as it is written.

    Attributes
    ----------
    name : str
    parameters : list of int
        Bytes of each.
    most_threads : int
        Of a block.
    dynamic : frozenset of str
        Names of dynamic shared memory.
    widths : dict of str to int
        Bytes of registers by their prefix, at least 4; 0 for predicates.
    variables : list of Variable
    statements : list of Statement
    labels : dict of str to int
        The statement behind each.
    """

    name: str
    parameters: list[int]
    most_threads: int
    dynamic: frozenset[str]
    widths: dict[str, int] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Unread:
    """A kernel whose statements nobody has read yet, which takes a while."""

    name: str
    body: str
    parameters: str
    directives: str
    dynamic: frozenset[str]

    def read(self) -> Entry:
        threads = re.search(r"\.maxntid\s+(\d+)", self.directives)
        entry = Entry(
            self.name,
            [int(bits) // 8 for bits in _PARAMETER.findall(self.parameters)],
            int(threads[1]) if threads else 1024,
            self.dynamic,
        )
        if len(entry.parameters) != self.parameters.count(".param"):
            raise PtxError(f"kernel {self.name}: parameters that are no numbers: {self.parameters}")
        _read_body(entry, self.body)
        return entry


def entries(text: str) -> dict[str, Unread]:
    """The kernels of a PTX text by name."""
    dynamic = frozenset(_DYNAMIC.findall(text))
    found = {}
    for match in _ENTRY.finditer(text):
        body = text[match.end() : _end_of_body(text, match.end(), match[1])]
        found[match[1]] = Unread(match[1], body, match[2], match[3], dynamic)
    return found


def _end_of_body(text: str, start: int, name: str) -> int:
    """Where the brace stands that closes the one just before `start`."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return brace.start()
    raise PtxError(f"kernel {name} never ends")


def _read_body(entry: Entry, body: str) -> None:
    line = 0
    for written in body.splitlines():
        row = written.partition("//")[0].strip()
        if where := _LOCATION.match(row):
            # Of a header of CUDA itself: where it was inlined.
            line = int(where[2] if where[1] == "1" else where[3] or line)
            continue
        while label := _LABEL.match(row):
            entry.labels[label[1]] = len(entry.statements)
            row = row[label.end() :]
        if registers := _REGISTERS.match(row):
            width = 0 if registers[1] == "pred" else max(4, int(registers[2]) // 8)
            for prefix in re.findall(r"%[A-Za-z_]+", registers[3]):
                entry.widths[prefix] = width
        elif variable := _VARIABLE.match(row):
            space, alignment, bits, name, n = variable.groups()
            n_bytes = int(bits) // 8 * int(n or 1)
            entry.variables.append(Variable(name, space, int(alignment), n_bytes))
        elif row not in ("", "{", "}") and not row.startswith(".pragma"):
            for statement in filter(None, map(str.strip, row.split(";"))):
                entry.statements.append(_statement(statement, line))


def _statement(text: str, line: int) -> Statement:
    match = _STATEMENT.fullmatch(text)
    if match is None:
        return Statement(text, line, None, False, (text,), ())
    return Statement(
        text,
        line,
        match["guard"],
        bool(match["negated"]),
        tuple(match["op"].split(".")),
        tuple(operand.strip() for operand in _OPERAND.findall(match["rest"])),
    )
