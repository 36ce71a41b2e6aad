"""Tables of the site, as Markdown, made of what the package and the repository hold.

Nothing here knows Sphinx, so that tests can read the same tables.
"""

from __future__ import annotations

import ast
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
DATA = DOCS / "data"
RECORDS = ROOT / "benchmarks" / "results"
PACKAGE = ROOT / "pdex_gpu"

#: Stands for what a message fills in.
GAP = "…"

#: Stands in a table where there is nothing to say.
NOTHING = "\N{EN DASH}"


def load(name: str) -> dict[str, Any]:
    """A TOML file of ``docs/data``."""
    return tomllib.loads((DATA / f"{name}.toml").read_text("utf-8"))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped, and no cell is empty."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or NOTHING


def code(text: str) -> str:
    """Literal text, of any kind; nothing for nothing."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}" if text else ""


# --- comparisons -----------------------------------------------------------------------------


def comparisons() -> str:
    """The comparisons: arguments that ask for them, and what groups are compared with."""
    from pdex_gpu.design.comparisons.registry import comparison_classes

    examples = [example for one in comparison_classes() for example in one.examples()]
    rows = [(code(arguments), text) for arguments, text in examples]
    return markdown(("call", "each group is compared with"), rows)


# --- columns ---------------------------------------------------------------------------------


def columns(which: str) -> str:
    """The columns of results, ``"default"`` or ``"extra"``: meaning, NaN, formula, source."""
    from pdex_gpu.results import schema

    unasked = [*schema.COLUMNS, *(column for column in schema.EXTRA_COLUMNS if column.default)]
    rows = []
    for column in (*schema.COLUMNS, *schema.EXTRA_COLUMNS):
        if (column in unasked) != (which == "default"):
            continue
        name = code(column.name) + ("" if column.dtype == "float64" else f" {column.dtype}")
        nan = "" if column.missing == "never" else f"; NaN {column.missing}"
        formula = f"${column.formula}$" if column.formula else ""
        rows.append((name, column.meaning + nan, formula, column.source))
    return markdown(("column", "meaning", "formula", "source"), rows)


# --- tests -----------------------------------------------------------------------------------


def tests(which: str) -> str:
    """The statistical tests: their ``"options"``, or what they do over ``"strata"``."""
    from pdex_gpu.stats.registry import METRICS, all_options
    from pdex_gpu.stats.two_sample.options import options_of

    if which == "strata":
        forms = [
            (code(metric), test.stratified_form or "no stratified form")
            for metric, test in METRICS.items()
        ]
        return markdown(("metric", "test"), forms)
    rows = []
    for option in all_options():
        owners = [code(m) for m, t in METRICS.items() if option.name in map(_name, options_of(t))]
        values = ", ".join(code(repr(value)) for value in option.values) or option.kind
        of_the_limit = " Values other than the default have asymptotic p-values."
        doc = option.doc + of_the_limit * option.asymptotic_only
        rows.append(
            (code(f"{option.name}={option.default!r}"), ", ".join(owners), values,
             doc.replace("``", "`"))
        )  # fmt: skip
    return markdown(("option and default", "metrics", "values", "meaning"), rows)


def _name(option: Any) -> str:
    return str(option.name)


def caveats() -> str:
    """Return the caveats of the tests' p-values."""
    from pdex_gpu.stats.registry import METRICS

    found = []
    for test in METRICS.values():
        for caveat in test.caveats:
            given = ", ".join(f"{name}={value!r}" for name, value in caveat.given.items())
            found.append(f"- {caveat.text}" + (f" ({code(given)})" if given else ""))
    return "\n".join(found) + "\n"


# --- moving ----------------------------------------------------------------------------------


def moving(peer: str, what: str) -> str:
    """A table of a page about moving: ``"parameters"``, ``"columns"`` or ``"differences"``."""
    found = load(f"moving/{peer}")
    package = f"{found['peer']['name']} {found['peer']['version']}"
    if what == "parameters":
        head = [package, "default", "`differential_expression`", "default", "note"]
        return markdown(
            head,
            [
                (code(p["name"]), code(p.get("default", "")), code(p.get("ours", "")),
                 code(p.get("ours_default", "")), p.get("note", ""))
                for p in found["parameter"]
            ],
        )  # fmt: skip
    if what == "columns":
        return markdown(
            (package, "`differential_expression`", "note"),
            [
                (code(c["name"]), code(c.get("ours", "")), c.get("note", ""))
                for c in found["column"]
            ],
        )
    return markdown(
        ("what", package, "pdex_gpu"),
        [(d["what"], d["theirs"], d["ours"]) for d in found["difference"]],
    )


# --- benchmarks ------------------------------------------------------------------------------


def records() -> list[Path]:
    """Records of benchmarks, the newest first."""

    def started(path: Path) -> str:
        return str(json.loads(path.read_text("utf-8"))["started"])

    return sorted(RECORDS.glob("*.json"), key=started, reverse=True)


def record(path: Path) -> str:
    """A record of a benchmark: machine, versions, seconds, figures, agreement.

    If the benchmark has written a page next to it, that page.
    """
    page = path.with_suffix(".md")
    if page.exists():
        return re.sub(r"^#", "##", page.read_text("utf-8"), flags=re.MULTILINE)
    found = json.loads(path.read_text("utf-8"))
    parts = [f"## {path.stem}", _about(found)]
    times = list(_times(found["tasks"]))
    if times:
        head = ("task", "tool", "median, s", "min", "max", "rounds", "times as long as pdex_gpu")
        parts += ["### Seconds", markdown(head, times)]
    figures = [_figure(name, entry) for name, entry in found["figures"].items()]
    if figures:
        parts += ["### Figures", markdown(("figure", "value", "aim", "met"), figures)]
        if any(entry.get("extrapolated") for entry in found["figures"].values()):
            parts.append("\\* extrapolated from some of the genes.\n")
    agreement = [
        (code(name), f"{entry['pairs']:,}", _number(entry["max_relative_difference"]))
        for name, entry in found["agreement"].items()
        if "pairs" in entry and "max_relative_difference" in entry
    ]
    if agreement:
        head = ("with", "pairs", "largest relative difference")
        parts += ["### Agreement of p-values", markdown(head, agreement)]
    return "\n\n".join(parts)


def _about(found: dict[str, Any]) -> str:
    machine = found["machine"]
    peers = ", ".join(
        f"{name.split('-')[0]} {versions[name.split('-')[0]]}"
        for name, versions in found["versions"].items()
        if name != "pdex_gpu" and name.split("-")[0] in versions
    )
    ours = found["versions"].get("pdex_gpu", {})
    screen = found["parameters"].get("screen", {})
    lines = [
        f"{found['started'][:10]}, {machine['system']} {machine['architecture']}, "
        f"{machine['cpu']}, {machine['usable_cores']} cores, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB; "
        f"commit `{found['commit']['head'][:7]}`.",
    ]
    versions = "; ".join(filter(None, (_versions(ours), peers)))
    if versions:
        lines.append(f"{versions}.")
    if screen:
        lines.append(
            f"Simulated screen of {screen['n_cells']:,} cells x {screen['n_genes']:,} genes, "
            f"{screen['n_perturbations']:,} perturbations; "
            f"{found['parameters']['threads']} threads."
        )
    return "\n".join(lines)


def _versions(found: dict[str, Any]) -> str:
    """The versions that a record has; it may not have all."""
    names = {"python": "Python", "numpy": "numpy", "scipy": "scipy", "numba": "numba"}
    return ", ".join(f"{name} {found[key]}" for key, name in names.items() if found.get(key))


def _times(tasks: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for task, content in tasks.items():
        seconds = content.get("seconds", {})
        ours = seconds.get("pdex_gpu", {}).get("median")
        for tool, entry in seconds.items():
            ratio = entry["median"] / ours if ours and tool != "pdex_gpu" else None
            yield (
                code(task), tool, _number(entry["median"]), _number(entry["min"]),
                _number(entry["max"]), str(len(entry["times"])),
                "" if ratio is None else _number(ratio),
            )  # fmt: skip


def _figure(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    value = _number(entry["value"]) + ("\\*" if entry.get("extrapolated") else "")
    met = {True: "yes", False: "**no**"}.get(entry.get("met"), "")
    return code(name), value, entry.get("target", ""), met


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# --- messages --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """A message of an error or a warning, as the code has it.

    Attributes
    ----------
    kind : str
        Name of the class.
    text : str
        What it fills in is a gap.
    module : str
        Where, such as ``"sources.hdf5"``.
    """

    kind: str
    text: str
    module: str


def messages() -> list[Message]:
    """Every message that the package raises or warns with, as far as the code spells it out."""
    from pdex_gpu import errors

    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        tree = ast.parse(path.read_text("utf-8"))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            kind, text = _raised(call, kinds, tree)
            if kind and text.strip(GAP + " \n"):
                found.append(Message(kind, text, module.removesuffix(".__init__")))
    return sorted(set(found), key=lambda m: (m.kind, m.text, m.module))


def _raised(call: ast.Call, kinds: set[str], tree: ast.Module) -> tuple[str, str]:
    """Class and text of an error that is made here, or of a warning; empty for other calls."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if name in kinds and call.args:
        return name, template(call.args[0], tree)
    if name == "check_choice" and call.args:
        return "OptionError", _unknown(template(call.args[0], tree))
    if name == "warn" and len(call.args) > 1:
        kind = getattr(call.args[1], "id", "")
        return (kind if kind in kinds else ""), template(call.args[0], tree)
    return "", ""


def template(node: ast.expr, tree: ast.Module) -> str:
    """Text of an expression, with a gap for what is not known before it runs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(v.value) if isinstance(v, ast.Constant) else GAP for v in node.values]
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left, tree) + template(node.right, tree)
    if isinstance(node, ast.IfExp):
        return template(node.body, tree)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("unknown", "unknown_label"):
        return _unknown(template(node.args[0], tree))
    if isinstance(node, ast.Name):
        return _assigned(node, tree)
    return GAP


def _unknown(asked: str) -> str:
    return f"Unknown {asked} '{GAP}'. Did you mean '{GAP}'? Available ({GAP}): {GAP}."


def _assigned(name: ast.Name, tree: ast.Module) -> str:
    """Text of the assignment to a name that comes last before it; a gap without one."""
    before = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and node.lineno < name.lineno
        and any(isinstance(t, ast.Name) and t.id == name.id for t in node.targets)
    ]
    last = max(before, key=lambda value: value.lineno, default=None)
    return GAP if last is None or isinstance(last, ast.Name) else template(last, tree)


#: What messages are about, and the classes of these.
TOPICS = {
    "Options, columns and names": (
        "OptionError", "UnknownOptionError", "ColumnError", "GeneError", "LayerError",
    ),
    "Groups and comparisons": (
        "LabelError", "MissingLabelWarning", "UnknownGroupWarning", "SkippedWarning",
    ),
    "Values of the matrix": (
        "DataError", "ScaleWarning", "UnsupportedDataError", "DuplicateGeneWarning",
    ),
    "Files that are read": (
        "MissingFileError", "UnreadableFileError", "FileFormatError", "TextEncodingWarning",
    ),
    "Outputs and checkpoints": (
        "OutputError", "ScratchError", "CheckpointError", "DamagedCheckpointWarning",
        "CoverageError",
    ),
    "Memory": ("MemoryBudgetError", "SharedMemoryError", "LowMemoryError"),
    "Backends, devices and packages": (
        "BackendError", "KernelError", "DeviceMemoryError", "DeviceLostError",
        "MissingDependencyError",
    ),
    "Clusters and workers": ("ClusterError", "WorkerError"),
}  # fmt: skip


def troubles() -> str:
    """Return what to do about the most frequent messages, by topic; each opens on a click."""
    found = load("troubles")
    parts = []
    for topic, kinds in TOPICS.items():
        parts.append(f"### {topic}")
        for kind in kinds:
            about = f"{{py:class}}`~pdex_gpu.errors.{kind}`: {_summary(kind)}"
            for entry in found[kind]:
                advice = f"{entry['cause']} **{entry['do']}**"
                parts += _folded(f"<code>{escape(entry['message'])}</code>", advice, about)
    return "\n\n".join(parts)


def _folded(summary: str, *paragraphs: str) -> list[str]:
    """Parts of a page behind a line of HTML that opens them."""
    return [f'<details class="message"><summary>{summary}</summary>', *paragraphs, "</details>"]


def _summary(kind: str) -> str:
    from pdex_gpu import errors

    text = (getattr(errors, kind).__doc__ or "").splitlines()[0]
    return text[0].lower() + text[1:]


def message_lists() -> str:
    """Every message, class by class; each class opens on a click."""
    by_kind: dict[str, list[str]] = {}
    for message in messages():
        by_kind.setdefault(message.kind, []).append(" ".join(message.text.split()))
    parts = []
    for kind, texts in by_kind.items():
        once = list(dict.fromkeys(texts))  # two modules may say the same
        listed = "\n".join(f"- {code(text)}" for text in once)
        parts += _folded(f"{kind}: {len(once)}", listed)
    return "\n\n".join(parts)


def error_classes() -> str:
    """Every error class: what it is, what else catches it, and its exit code."""
    from pdex_gpu import errors
    from pdex_gpu.utils.exit_codes import exit_code

    rows = []
    for name, kind in vars(errors).items():
        if not isinstance(kind, type) or not issubclass(kind, errors.PdexGpuError):
            continue
        if kind is errors.PdexGpuError:
            continue
        others = [base.__name__ for base in kind.__bases__ if base is not errors.PdexGpuError]
        rows.append(
            (f"{{py:class}}`~pdex_gpu.errors.{name}`", _summary(name), code(", ".join(others)),
             str(int(exit_code(kind("")))))
        )  # fmt: skip
    return markdown(("error", "when", "also a", "exit code"), rows)
