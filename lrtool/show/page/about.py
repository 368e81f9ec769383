"""What a run was made of, in rows of tables: data, model, configuration, environment."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from lrtool.config.schema import Config
from lrtool.config.spelling import number, spell
from lrtool.errors import key_path
from lrtool.show import words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lrtool.errors import KeyPath
    from lrtool.report.records import ColumnFacts
    from lrtool.report.report import AnyReport

MOST_BYTES = 20_000  # of a table; report.json has the others
ROW = 40  # bytes of a row without its texts
LONGEST = 200  # characters of a name or a value
FILLED_IN = {("search_path",), ("runtime", "threads")}  # by the run, whoever wrote what

Rows = list[tuple[str, ...]]


def about(report: AnyReport) -> dict[str, Any]:
    """Return what `about.html` shows of any run."""
    changed, rest = _configuration(report)
    columns = [_column(each) for each in (report.data.columns if report.data else ())]
    shown = {"columns": columns, "changed": changed, "rest": rest}
    fitting = {name: _fitting(rows) for name, rows in shown.items()}
    more = {name: len(shown[name]) - len(rows) for name, rows in fitting.items()}
    return {
        **fitting,
        "more_columns": more["columns"],
        "more_keys": more["changed"] + more["rest"],
        "data": _data(report),
        "setup": _fitting(_setup(report)),
        "environment": _environment(report),
    }


def _fitting(rows: Rows) -> Rows:
    """Return as many of the first rows as a page has room for."""
    sizes = (ROW + sum(len(escape(cell).encode()) for cell in row) for row in rows)
    return [row for row, size in zip(rows, accumulate(sizes), strict=True) if size <= MOST_BYTES]


def short(text: str) -> str:
    """Return a text, or its beginning where it is long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _data(report: AnyReport) -> Rows:
    data = report.data
    rows: Rows = [("source", short(str(words.setting(report, "data", "source") or "–")))]
    if data is None:
        return [*rows, ("state", "the run ended before they were read")]
    if data.samples:
        parts = (f"{words.name(part)}: {count:,}" for part, count in data.samples.items())
        rows.append(("samples", ", ".join(parts)))
    for name, shape in data.shapes.items():
        sizes = " × ".join(map(str, shape)) or "a single value"
        rows.append((f"shape of {short(name)}", sizes))
    if data.samples_per_update:
        rows.append(("samples per update", f"{data.samples_per_update:,}"))
    if scale := words.target_scale(report):
        rows.append(("target", short(scale)))
    if data.hash:
        rows.append(("digest", data.hash))
    return rows


def _column(column: ColumnFacts) -> tuple[str, ...]:
    """Return name, use, how it was read, range and missing fields of a column."""
    read = column.reason or ""
    if column.words is not None:
        one, more = ("class", "classes") if column.use == "target" else ("word", "words")
        read = f"{column.words:,} {one if column.words == 1 else more}"
    elif column.kind is not None:
        read = column.kind
    reach = ""
    if column.low is not None and column.high is not None:
        reach = f"{number(column.low, 6)} to {number(column.high, 6)}"
    missing = f"{column.missing:,}" if column.missing else ""
    return short(column.name or "''"), column.use, short(read), reach, missing


def _setup(report: AnyReport) -> Rows:
    """Return model, loss, optimizer and schedule, and what is frozen."""
    rows: Rows = []
    model = report.model
    if model:
        count = f"{model.parameters:,} parameters"
        if model.trainable != model.parameters:
            count += f", {model.trainable:,} of them trained"
        rows.append(("model", f"{short(model.name)}: {count}"))
        for title, text in words.start(report):
            name = {"Weights": "pretrained weights", "Part": "trained part"}.get(title)
            rows.append((name or "rates of parts", short(text)))
    for title, *keys in (
        ("loss", "loss"),
        ("optimizer", "optimizer"),
        ("schedule", "train", "schedule"),
    ):
        if text := _component(report, *keys):
            rows.append((title, text))
    if metrics := words.setting(report, "metrics"):
        rows.append(("metrics", short(", ".join(map(_name, metrics)))))
    return rows


def _component(report: AnyReport, *keys: str) -> str:
    """Spell a named part of the configuration with its arguments: "adamw (weight_decay 0.01)"."""
    name, arguments = (words.setting(report, *keys, key) for key in ("name", "args"))
    if not isinstance(name, str):
        return ""
    given = arguments if isinstance(arguments, dict) else {}
    text = ", ".join(f"{key} {spell(value)}" for key, value in given.items())
    return short(f"{name} ({text})" if text else name)


def _name(metric: Any) -> str:
    return str(metric.get("name") if isinstance(metric, dict) else metric)


def _configuration(report: AnyReport) -> tuple[Rows, Rows]:
    """Return the keys that differ from the defaults, with both values, and all others."""
    default = dict(_leaves(Config().model_dump(mode="json")))
    changed: Rows = []
    rest: Rows = []
    for path, value in _leaves(report.config):
        key, text = short(key_path(path)), short(spell(value))
        if path in FILLED_IN or (path in default and default[path] == value):
            rest.append((key, text))
        else:
            changed.append((key, text, short(spell(default[path])) if path in default else "–"))
    return changed, rest


def _leaves(values: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value that is no mapping, or an empty one, with its path."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, (*path, name))
    else:
        yield path, values


def _environment(report: AnyReport) -> Rows:
    here = report.environment
    rows: Rows = [
        ("lrtool", here.lrtool),
        ("torch", here.torch),
        ("python", here.python),
        ("platform", here.platform),
        ("device", f"{here.device}: {short(here.device_name)}"),
        ("threads", f"{here.threads:,}"),
    ]
    if here.world_size > 1:
        rows.append(("ranks", f"{here.world_size:,} ({here.backend})"))
    hosts = [f"{rank.host} {rank.device}" for rank in here.ranks]
    rows += [("", short(", ".join(hosts)))] if hosts else []
    rows.append(("seed", "of the caller" if report.seed is None else str(report.seed)))
    rows.append(("took", words.took(report)))
    if report.timing.setup_s is not None:
        rows.append(("set-up", f"{report.timing.setup_s:.1f} s"))
    if report.timing.samples_per_s:
        rows.append(("speed", words.per_second(report.timing.samples_per_s, "samples")))
    rows.append(("digest of the configuration", report.config_hash))
    return rows
