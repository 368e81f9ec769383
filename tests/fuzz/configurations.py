"""Damaged configurations: those of configs/ with changed bytes, lines and values, and `--set`."""

from pathlib import Path

from case import Case
from mutations import damage

EXAMPLES = Path(__file__).parents[2] / "configs"
# Made from larger files, they would take most of the time.
LEFT_OUT = {"fashion_mnist", "char_lm"}
SOUND = {path.name: path.read_bytes() for path in EXAMPLES.iterdir() if path.stem not in LEFT_OUT}
CONFIGS = sorted(name for name in SOUND if name.endswith(".yaml"))
ODD = (
    "null", "~", "", "-1", "0", "1", "2", "-0.0", "1e308", "-1e-320", ".inf", ".nan", "1" * 5000,
    "1e99999", f"{10**12}", f"{10**30}", "0x" + "f" * 3000, "true", "no", '"3"', "[]", "{}",
    "[[[[]]]]", "[1000000000000]", f"[{10**30}]", "{name: mlp, args: {hidden: [1000000000000]}}",
    "{name: [1]}", "{a: {b: {c: }}}", '"\\U00110000"', '"\\ud800"', '"\\0"', "'\x1b[31mred'",
    "&a x", "*a", "!!python/object:os.system x", "!x y", "? x", "~nosuchuser/x", "/dev/null", "..",
    "os:system", "os:_exit", "sys:exit", "x" * 9000, "a:b:c", ":", "math:pi", "torch.nn:Linear",
    "builtins:print", "collections:OrderedDict", "$x$ _{", "2026-01-01", "1_000", "0o7", "% y",
    "@x", "[" * 100, "{" * 100, '"C:\\data\\table.csv"', "full", "auto", "digits", "mlp", "adam",
    "cosine", "cross_entropy", "mse_loss", "one_cycle", "csv", "cuda", "cpu", "mps", "bf16",
)  # fmt: skip
KEYS = (
    "seed", "search_path", "data", "data.source", "data.args", "data.args.path", "data.batch_size",
    "data.validation", "data.workers", "data.args.samples", "data.args.features", "model",
    "model.name", "model.args", "model.args.hidden", "model.args.hidden.0", "model.args.width",
    "model.args.dropout", "loss", "loss.args.reduction", "metrics", "metrics.0", "optimizer",
    "optimizer.args.lr", "optimizer.args.weight_decay", "optimizer.args.betas", "optimizer.groups",
    "optimizer.groups.0.match", "optimizer.groups.0.lr_ratio", "optimizer.layer_decay",
    "learning_rate", "find.start",
    "find.end", "find.steps", "find.repeats", "find.mode", "find.verify", "train.epochs",
    "train.max_steps", "train.schedule", "train.schedule.warmup", "train.schedule.args.period",
    "train.accumulate", "train.ema_decay", "train.early_stopping.patience", "train.log_every",
    "train.gradient_clip_norm", "runtime.device", "runtime.precision", "runtime.memory_format",
    "", ".", "a", "...", "." * 3000, "a." * 3000 + "a", "metrics.999999999999", "model.args.0.0",
    "optimizer.groups." + "9" * 5000, "\x1b[31m", "model.name.name.name", "data.args.\ud800",
)  # fmt: skip


def case(random):
    """Return a damaged configuration, a strange `--set`, or both."""
    name = random.choice(CONFIGS)
    content, done, sets = SOUND[name], [], []
    for _ in range(random.choice((1, 1, 2, 3))):
        kind = random.choice(("bytes", "line", "value", "value", "set", "set", "whole"))
        done.append(kind)
        if kind == "set":
            sets += ["--set", f"{random.choice(KEYS)}={random.choice(ODD)}"]
        elif kind == "whole":
            content = whole(random)
        elif content:
            content = {"bytes": changed_bytes, "line": moved_lines, "value": odd_value}[kind](
                random, content
            )
    return Case(["check", name, *sets], {name: content}, done=", ".join(done))


def changed_bytes(random, content):
    return damage(random, content)[0]


def moved_lines(random, content):
    lines = content.split(b"\n")
    here, there = random.randrange(len(lines)), random.randrange(len(lines))
    match random.choice(("drop", "double", "swap", "indent", "join", "tab")):
        case "drop":
            del lines[here]
        case "double":
            lines.insert(there, lines[here])
        case "swap":
            lines[here], lines[there] = lines[there], lines[here]
        case "indent":
            lines[here] = b" " * random.randrange(1, 5) + lines[here]
        case "join":
            lines[here : here + 2] = [b"".join(lines[here : here + 2])]
        case "tab":
            lines[here] = b"\t" + lines[here]
    return b"\n".join(lines)


def odd_value(random, content):
    """Put another value after one of the colons."""
    parts = content.split(b": ")
    if len(parts) < 2:
        return content
    place = random.randrange(1, len(parts))
    old = parts[place]
    ends = [end for sign in (b",", b"}", b"]", b"\n", b" #") if (end := old.find(sign)) >= 0]
    odd = random.choice(ODD).encode("utf-8", "surrogatepass")
    parts[place] = odd + old[min(ends, default=len(old)) :]
    return b": ".join(parts)


def whole(random):
    """Return what is no configuration at all, or one that would never end."""
    return random.choice(
        (
            b"",
            b"\xff\xfe",
            b"%YAML " + b"1" * 5000 + b".2\n---\nseed: 0",
            b"%YAML 9.9\n---\nseed: 0",
            b"%TAG ! tag:x,2000:\n---\nseed: !x 0",
            b"a: &a [*a]",
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                f"{key}: &{key} [*{old}{f',*{old}' * 8}]\n".encode()
                for old, key in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            b"seed: " + b"[" * 900,
            b"{" * 900,
            b"- " * 900 + b"x",
            b"seed: 0\n---\nseed: 1",
            b"? [a]\n: b",
            b"'" * 99_999,
            b"seed: |\n" + b"x\n" * 99_999,
            b"seed: \x1b[31m0",
            "séed: 0".encode("latin-1"),
            "seed: 0".encode("utf-16"),
            b"model: {args: {" + b",".join(b"k%d: 1" % n for n in range(3000)) + b"}}",
            b"x" * 1_000_001,
        )
    )
