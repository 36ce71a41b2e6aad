"""Turns the statements of a kernel into instructions for the executor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import executor
from .instructions import (
    INSTRUCTION,
    IS_SIGNED,
    IS_VOLATILE,
    KINDS,
    PLACES,
    SHUFFLES,
    SPACES,
    kind_names,
)
from .registers import Registers, addresses
from .text import Entry, PtxError, Statement

# Parts of opcodes that change nothing on this device.
_DROPPED = {"rn", "uni", "sync", "aligned", "relaxed", "gpu", "cta", "sys", "nc", "weak"}
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_PARAMETER = re.compile(r"\[\w+_param_(\d+)\]")
# Statements that are no arithmetic, by the first part of the opcode: the method that decodes them.
_METHODS = {
    "ld": "_load", "st": "_store", "atom": "_atomic", "red": "_reduction", "bra": "_branch",
    "ret": "_return", "exit": "_return", "bar": "_barrier", "barrier": "_barrier",
    "shfl": "_shuffle", "vote": "_vote", "cvta": "_to_global", "setp": "_compare", "mov": "_move",
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel as the executor runs it.

    Attributes
    ----------
    name : str
    parameters : list of int
        Bytes of each.
    most_threads : int
    code : numpy.ndarray of INSTRUCTION
    kinds : numpy.ndarray of str
        Of each instruction, such as "plain" or "load.global".
    opcodes : list of str
        Of each instruction, such as "add.s32".
    registers : Registers
    shared_bytes : int
        Static ones.
    local_bytes : int
        Of a thread.
    """

    name: str
    parameters: list[int]
    most_threads: int
    code: np.ndarray
    kinds: np.ndarray
    opcodes: list[str]
    registers: Registers
    shared_bytes: int
    local_bytes: int


def decode(entry: Entry) -> Kernel:
    """Decode a kernel.

    Raises
    ------
    PtxError
        If a statement is none that the executor knows; says which, and its line in the source.
    """
    symbols, spaces = addresses(entry)
    registers = Registers(entry.widths, symbols)
    decoder = _Decoder(entry, registers)
    code = np.zeros(len(entry.statements), INSTRUCTION)
    for i, statement in enumerate(entry.statements):
        try:
            decoded = decoder.decode(statement)
        except (PtxError, ValueError, LookupError) as error:
            raise PtxError(
                f"kernel {entry.name}, line {statement.line}: "
                f"cannot run the PTX instruction `{statement.text}`: {error}"
            ) from error
        for field, value in decoded.items():
            code[field][i] = value
    return Kernel(
        entry.name, entry.parameters, entry.most_threads, code, kind_names(code),
        [".".join(statement.parts) for statement in entry.statements], registers, spaces["shared"],
        spaces["local"],
    )  # fmt: skip


def _bytes_of(part: str) -> int:
    """Bytes of the type that an opcode ends in, such as "u32"."""
    if not re.fullmatch(r"[bufs](8|16|32|64)", part):
        raise PtxError(f"{part} is no type of 8 to 64 bits")
    return int(part[1:]) // 8


class _Decoder:
    """Decodes the statements of one kernel, one after another."""

    def __init__(self, entry: Entry, registers: Registers) -> None:
        self.entry = entry
        self.registers = registers

    def decode(self, statement: Statement) -> dict[str, Any]:
        """The fields of an instruction that are not 0."""
        fields: dict[str, Any] = dict.fromkeys(PLACES, -1)
        fields |= {"data": [-1] * 4, "line": statement.line}
        if statement.guard:
            fields["guard"] = self.registers.predicate(statement.guard)
            fields["negated"] = int(statement.negated)
        parts, operands = list(statement.parts), list(statement.operands)
        if parts[0] != "cvt":  # its rounding matters
            parts = [part for part in parts if part not in _DROPPED]
        getattr(self, _METHODS.get(parts[0], "_arithmetic"))(fields, parts, operands)
        return fields

    @staticmethod
    def _form(*parts: str) -> int:
        name = ".".join(parts)
        number = executor.form(name)
        if number < 0:
            raise PtxError(f"the device has no {name}")
        return number

    # --- memory

    def _load(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        if "param" in parts:
            self._load_parameter(fields, operands)
            return
        self._memory(fields, "load", parts)
        self._data(fields, operands[0])
        self._address(fields, operands[1])

    def _load_parameter(self, fields: dict[str, Any], operands: list[str]) -> None:
        match = _PARAMETER.fullmatch(operands[1])
        if match is None:
            raise PtxError("a part of a parameter is read")
        width = max(4, self.entry.parameters[int(match[1])])
        if self.registers.width(operands[0]) != width:
            raise PtxError(f"{operands[0]} does not have the {width} bytes of the parameter")
        fields["form"] = self._form(f"mov.b{8 * width}")
        fields["to"] = self.registers.place(operands[0])
        fields["a"] = self.registers.parameter(int(match[1]), width)

    def _store(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        self._memory(fields, "store", parts)
        self._address(fields, operands[0])
        self._data(fields, operands[1])

    def _atomic(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        self._memory(fields, "atomic", parts)
        fields["form"] = self._form("atom", *parts[-2:])
        if operands[0] != "_":
            fields["to"] = self.registers.place(operands[0])
        self._address(fields, operands[1])
        for k, operand in enumerate(operands[2:]):
            fields["data"][k] = self.registers.value(operand, fields["size"])

    def _reduction(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        self._atomic(fields, parts, ["_", *operands])

    def _memory(self, fields: dict[str, Any], kind: str, parts: list[str]) -> None:
        """What loads, stores and atomics have in common."""
        space = next((part for part in parts if part in SPACES), None)
        if space is None:
            raise PtxError(f"the device knows memory that is one of {', '.join(SPACES)}")
        known = {parts[0], space, "volatile", "v2", "v4", parts[-1]}
        if kind != "atomic" and (strange := [part for part in parts if part not in known]):
            raise PtxError(f"the device has no {kind} with {', '.join(strange)}")
        fields |= {"kind": KINDS.index(kind), "space": SPACES.index(space)}
        fields["size"] = _bytes_of(parts[-1])
        signed = IS_SIGNED if parts[-1].startswith("s") else 0
        fields["flags"] = signed | (IS_VOLATILE if "volatile" in parts else 0)

    def _address(self, fields: dict[str, Any], operand: str) -> None:
        match = _ADDRESS.fullmatch(operand)
        if match is None:
            raise PtxError(f"{operand} is no address")
        fields["offset"] = int(match[2] or "0", 0)
        if match[1].startswith("%"):
            fields["a"] = self.registers.place(match[1])
            fields["c"] = self.registers.width(match[1])
        else:
            fields["offset"] += self.registers.symbol(match[1])

    def _data(self, fields: dict[str, Any], operand: str) -> None:
        """The registers, or numbers, that are loaded or stored."""
        for k, name in enumerate(operand.strip("{}").split(",")):
            name = name.strip()
            is_register = name.startswith("%") and "." not in name
            width = self.registers.width(name) if is_register else max(4, fields["size"])
            fields["data"][k] = self.registers.value(name, width)
            fields["wide"] = width

    # --- control, and what lanes do together

    def _branch(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        fields |= {"kind": KINDS.index("branch"), "target": self.entry.labels[operands[0]]}

    def _return(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        fields["kind"] = KINDS.index("return")

    def _barrier(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        if parts[1:] == ["warp"]:
            fields["kind"] = KINDS.index("syncwarp")
            fields["d"] = self.registers.value(operands[0], 4)
        elif operands == ["0"] and len(parts) == 1:
            fields["kind"] = KINDS.index("barrier")
        else:
            raise PtxError("of barriers, the device has __syncthreads and __syncwarp")

    def _shuffle(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        to, _, valid = operands[0].partition("|")
        fields |= {"kind": KINDS.index("shuffle"), "target": SHUFFLES.index(parts[1])}
        fields["to"] = self.registers.place(to)
        if valid:
            fields["to2"] = self.registers.predicate(valid)
        for name, operand in zip("abcd", operands[1:], strict=True):
            fields[name] = self.registers.value(operand, 4)

    def _vote(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        if parts[1:] != ["ballot", "b32"]:
            raise PtxError("of votes, the device has ballots")
        fields |= {"kind": KINDS.index("ballot"), "to": self.registers.place(operands[0])}
        fields["a"] = self.registers.predicate(operands[1])
        fields["d"] = self.registers.value(operands[2], 4)

    # --- arithmetic

    def _to_global(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        if parts != ["cvta", "to", "global", "u64"]:
            raise PtxError("the device has no generic addresses")
        self._arithmetic(fields, ["mov", "b64"], operands)

    def _compare(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        first, _, second = operands[0].partition("|")
        fields |= {"form": self._form(*parts), "to": self.registers.predicate(first)}
        if second:
            fields["to2"] = self.registers.predicate(second)
        width = max(4, _bytes_of(parts[-1]))
        fields["a"], fields["b"] = (self.registers.value(o, width) for o in operands[1:])

    def _move(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        splits, joins = (operand.startswith("{") for operand in operands)
        if not splits and not joins:
            self._arithmetic(fields, parts, operands)
            return
        pair, whole = operands if splits else reversed(operands)
        fields["form"] = self._form("split" if splits else "join", parts[-1])
        fields["a" if splits else "to"] = self.registers.place(whole)
        for k, name in enumerate(pair.strip("{}").split(",")):
            fields["data"][k] = self.registers.value(name.strip(), 4)

    def _arithmetic(self, fields: dict[str, Any], parts: list[str], operands: list[str]) -> None:
        if parts[0] == "shr" and parts[-1].startswith("b"):
            parts = [*parts[:-1], f"u{parts[-1][1:]}"]
        if parts[-1] == "pred":
            fields["form"] = self._form(*parts)
            for name, operand in zip(("to", "a", "b"), operands, strict=False):
                fields[name] = self.registers.predicate(operand)
            return
        result, sources = self._widths(parts, operands)
        fields["form"] = self._form(*parts)
        if self.registers.width(operands[0]) != result:
            raise PtxError(f"{operands[0]} does not have {result} bytes")
        fields["to"] = self.registers.place(operands[0])
        for name, operand in zip("abcd", operands[1:], strict=False):
            if parts[0] == "selp" and name == "c":
                fields["c"] = self.registers.predicate(operand)
            else:
                fields[name] = self.registers.value(operand, sources[name])

    def _widths(self, parts: list[str], operands: list[str]) -> tuple[int, dict[str, int]]:
        """Bytes of the registers of an instruction's result and of its sources."""
        if (first := parts[0]) == "cvt":
            return self._widths_of_conversion(parts, operands)
        width = max(4, _bytes_of(parts[-1]))
        sources = dict.fromkeys("abcd", width)
        result = width
        if first in ("popc", "clz"):
            result = 4
        elif "wide" in parts:
            result = sources["c"] = 2 * _bytes_of(parts[-1])
        elif first in ("shl", "shr"):
            sources["b"] = 4
        elif first == "bfi":
            sources |= {"c": 4, "d": 4}
        elif first == "bfe":
            sources |= {"b": 4, "c": 4}
        return result, sources

    def _widths_of_conversion(
        self, parts: list[str], operands: list[str]
    ) -> tuple[int, dict[str, int]]:
        width = max(4, _bytes_of(parts[-1]))
        if width == 4 and operands[1].startswith("%") and self.registers.width(operands[1]) == 8:
            parts.insert(1, "low")  # of a wider register
            width = 8
        return max(4, _bytes_of(parts[-2])), {"a": width}
