"""Places of registers, constants and special registers in the memory of a warp."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .text import Entry, PtxError

_SPECIAL = re.compile(r"%(?:n?tid|n?ctaid)\.[xyz]|%laneid")
_BITS_OF_FLOAT = re.compile(r"0[fdFD]([0-9A-Fa-f]+)")
_SYMBOL = re.compile(r"([A-Za-z_$][\w$]*)(?:\+(\d+))?")
_LANES = 32


@dataclass
class Registers:
    """Gives each operand of a kernel a place: bytes of a warp's memory, or a predicate's number.

    Attributes
    ----------
    widths : dict of str to int
        As of `Entry`.
    symbols : dict of str to int
        Addresses of variables in their space.
    n_bytes, n_predicates : int
        What a warp needs.
    constants : dict of (int, int) to int
        Place by bytes (0 for predicates) and value.
    special : dict of str to int
        Place by name.
    parameters : dict of int to int
        Place by the parameter's number.
    """

    widths: dict[str, int]
    symbols: dict[str, int]
    n_bytes: int = 0
    n_predicates: int = 0
    constants: dict[tuple[int, int], int] = field(default_factory=dict)
    special: dict[str, int] = field(default_factory=dict)
    parameters: dict[int, int] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)

    def width(self, register: str) -> int:
        """Bytes of a register; 0 for a predicate."""
        prefix = register.rstrip("0123456789")
        if prefix not in self.widths:
            raise PtxError(f"there is no register {register}")
        return self.widths[prefix]

    def place(self, register: str) -> int:
        """The place of a register of any width."""
        if register not in self._places:
            width = self.width(register)
            self._places[register] = self._reserve(width) if width else self._new_predicate()
        return self._places[register]

    def value(self, operand: str, width: int) -> int:
        """The place of a source operand of 4 or 8 bytes: a register, a number, an address."""
        if _SPECIAL.fullmatch(operand):
            return self._special(operand, width)
        if operand.startswith("%"):
            if self.width(operand) != width:
                raise PtxError(f"{operand} has {self.width(operand)} bytes, not {width}")
            return self.place(operand)
        if bits := _BITS_OF_FLOAT.fullmatch(operand):
            return self._constant(int(bits[1], 16), width)
        if symbol := _SYMBOL.fullmatch(operand):
            return self._constant(self.symbol(symbol[1]) + int(symbol[2] or 0), width)
        return self._constant(int(operand, 0), width)

    def symbol(self, name: str) -> int:
        """The address of a variable."""
        if name not in self.symbols:
            raise PtxError(f"there is no variable {name} in shared or local memory")
        return self.symbols[name]

    def predicate(self, operand: str) -> int:
        """The place of a predicate: a register, or 0 or 1 for all lanes."""
        if operand.lstrip("-").isdigit():
            key = (0, int(bool(int(operand))))
            if key not in self.constants:
                self.constants[key] = self._new_predicate()
            return self.constants[key]
        if self.width(operand):
            raise PtxError(f"{operand} is not a predicate")
        return self.place(operand)

    def parameter(self, number: int, width: int) -> int:
        """The place of a kernel's parameter."""
        if number not in self.parameters:
            self.parameters[number] = self._reserve(width)
        return self.parameters[number]

    def _special(self, name: str, width: int) -> int:
        if width != 4:
            raise PtxError(f"{name} has 4 bytes, not {width}")
        if name.endswith((".y", ".z")):  # blocks and grids have one dimension
            return self._constant(int(name.startswith("%n")), width)
        if name not in self.special:
            self.special[name] = self._reserve(width)
        return self.special[name]

    def _constant(self, value: int, width: int) -> int:
        key = (width, value % (1 << 8 * width))
        if key not in self.constants:
            self.constants[key] = self._reserve(width)
        return self.constants[key]

    def _reserve(self, width: int) -> int:
        place = self.n_bytes
        self.n_bytes += _LANES * width
        return place

    def _new_predicate(self) -> int:
        self.n_predicates += 1
        return self.n_predicates - 1


def addresses(entry: Entry) -> tuple[dict[str, int], dict[str, int]]:
    """Addresses of a kernel's variables by name, dynamic memory last, and bytes of each space."""
    found: dict[str, int] = {}
    top = {"shared": 0, "local": 0}
    for variable in entry.variables:
        place = _rounded_up(top[variable.space], variable.alignment)
        found[variable.name] = place
        top[variable.space] = place + variable.n_bytes
    top["shared"] = _rounded_up(top["shared"], 16)
    return found | dict.fromkeys(entry.dynamic, top["shared"]), top


def _rounded_up(n: int, step: int) -> int:
    return -(-n // step) * step
