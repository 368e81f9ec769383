"""Checkpoints: everything comes back to the last bit, and a whole one is there at any moment."""

import copy
import errno
import json
import os
import pickle
import re
import warnings
import zlib
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lrtool.components.schedules import build_schedule
from lrtool.config.schema import ScheduleConfig
from lrtool.engine import checkpoint
from lrtool.engine.checkpoint import (
    TrainingState,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from lrtool.engine.ema import MovingAverage
from lrtool.engine.loop import BestTracker, Position
from lrtool.engine.weights import (
    finite_buffers,
    first_bad_weight,
    load_average,
    load_weights,
    read_notes,
    read_weights,
    write_weights,
)
from lrtool.errors import LrtoolWarning, UserError


class Everything(nn.Module):
    """All kinds of state that a model may have."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.first = nn.Linear(64, 6)
        self.second = nn.Linear(6, 6, bias=False)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.second.weight
        flat = torch.randn(12)
        self.low, self.high = nn.Parameter(flat[:6]), nn.Parameter(flat[6:])  # of one storage
        self.register_buffer("whole", flat)
        self.register_buffer("rows", flat.view(3, 4))
        self.register_buffer("count", torch.tensor(2**53 + 1))
        self.register_buffer("none", None)
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("short", torch.randn(3).bfloat16())
        self.register_buffer("hidden", torch.zeros(()), persistent=False)
        self.register_buffer("grows", torch.zeros(0, dtype=torch.int64), persistent=False)
        self.words = ["a"]

    def get_extra_state(self):
        return {"words": self.words, "table": torch.arange(2)}

    def set_extra_state(self, state):
        self.words = state["words"]
        assert state["table"].tolist() == [0, 1]

    def forward(self, x):
        self.hidden += 1
        self.count += 1
        self.grows = torch.cat([self.grows, self.count[None] % 7])
        self.words = [*self.words, "b"]
        h = self.drop(torch.relu(self.norm(self.conv(x)))).flatten(1)
        h = self.tied(self.second(self.first(h)))
        return h * self.low + self.high + self.hidden * 1e-3 + self.grows.sum() * 1e-3


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam_fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw_amsgrad": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), amsgrad=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
}


def plateau():
    spec = ScheduleConfig(name="plateau", args={"patience": 1, "factor": 0.5})
    return build_schedule(spec, steps=100, steps_per_epoch=10)


def training(
    optimizer="adam_fused", *, channels_last=False, model=None, average=True, scaler=False
):
    model = model or Everything()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    return TrainingState(
        model=model,
        optimizer=OPTIMIZERS[optimizer](model.parameters()),
        scaler=torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2) if scaler else None,
        schedule=plateau(),
        average=MovingAverage(model, 0.9) if average else None,
        position=Position(),
        best=BestTracker("validation_loss", higher=False),
    )


def go_on(run, steps, shape=(4, 2, 4, 4)):
    """Train; return the losses."""
    losses = []
    dtype = next(run.model.parameters()).dtype
    for _ in range(steps):
        x = torch.randn(shape).to(dtype)
        loss = F.mse_loss(run.model(x), torch.ones(()).to(dtype).expand(run.model(x).shape))
        rate = 0.01 * run.schedule.factor(run.position.step, 0)
        for group in run.optimizer.param_groups:
            if isinstance(group["lr"], float):
                group["lr"] = rate
        run.optimizer.zero_grad()
        if run.scaler is None:
            loss.backward()
            run.optimizer.step()
        else:
            run.scaler.scale(loss).backward()
            run.scaler.step(run.optimizer)
            run.scaler.update()
        if run.average is not None:
            run.average.update()
        run.schedule.observe(1.0)  # never better
        run.position.step += 1
        losses.append(loss.item())
    return losses


def whole_state(run):
    return copy.deepcopy(
        [
            dict(run.model.named_parameters(remove_duplicate=False)),
            dict(run.model.named_buffers()),
            getattr(run.model, "words", None),
            run.optimizer.state_dict(),
            run.scaler and run.scaler.state_dict(),
            run.schedule.state_dict(),
            run.average and (run.average.state(), run.average.updates),
            run.position,
            run.best,
        ]
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def resume(run, folder):
    found = newest_checkpoint(folder)
    assert found is not None
    load_checkpoint(run, *found)
    return found


def small(**options):
    torch.manual_seed(0)
    return training("momentum", model=nn.Linear(3, 2), average=False, **options)


def saved(tmp_path, steps=1, **options):
    """Save after each of some steps; return the training."""
    run = small(**options)
    for _ in range(steps):
        go_on(run, 1, (4, 3))
        save_checkpoint(run, tmp_path)
    return run


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_training_goes_on_to_the_last_bit(tmp_path, name):
    run = training(name, channels_last=True, scaler=name == "momentum")
    torch.manual_seed(1)
    go_on(run, 3)
    run.best = BestTracker("accuracy", higher=True, min_delta=0.1, value=0.5, epoch=2, waited=1)
    save_checkpoint(run, tmp_path, random=torch.get_rng_state(), config={"a": [1, None]})
    before = whole_state(run)
    expected = go_on(run, 4)
    after = whole_state(run)

    other = training(name, channels_last=True, scaler=name == "momentum")
    torch.manual_seed(99)
    go_on(other, 1)  # another state, which must not show through
    path, state = resume(other, tmp_path)
    assert path == tmp_path / "last"
    assert state["config"] == {"a": [1, None]}
    assert same(whole_state(other), before)
    torch.set_rng_state(state["random"])
    assert go_on(other, 4) == expected
    assert same(whole_state(other), after)
    assert other.model.tied.weight is other.model.second.weight
    assert other.model.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision(tmp_path, name, dtype):
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(training(name, model=nn.Linear(3, 2).to(dtype), average=False))
    go_on(runs[0], 3, (4, 3))
    save_checkpoint(runs[0], tmp_path)
    resume(runs[1], tmp_path)
    assert same(whole_state(runs[0]), whole_state(runs[1]))
    results = []
    for run in runs:
        torch.manual_seed(5)
        results.append(go_on(run, 3, (4, 3)))
    assert results[0] == results[1]
    assert same(whole_state(runs[0]), whole_state(runs[1]))


def test_a_training_of_which_nothing_was_done_yet(tmp_path):
    run, other = training(), training()
    with torch.no_grad():
        other.model.conv.weight.zero_()
    save_checkpoint(run, tmp_path)
    resume(other, tmp_path)
    assert same(whole_state(run), whole_state(other))


def test_equal_states_give_equal_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        run = training()
        torch.manual_seed(3)
        go_on(run, 2)
        save_checkpoint(run, tmp_path / name)
        files.append((tmp_path / name / "last" / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_the_weights_are_plain_safetensors(tmp_path):
    run = training()
    save_checkpoint(run, tmp_path)
    path = tmp_path / "last" / "model.safetensors"
    theirs, state = safetensors.torch.load_file(path), run.model.state_dict()
    own = read_weights(path)
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            assert same(own[name].contiguous(), tensor.contiguous())
    assert set(own) == {k for k, v in state.items() if isinstance(v, torch.Tensor)}
    assert set(own) - set(theirs) == {"tied.weight"}  # kept under its first name only
    assert read_notes(path) == {"epoch": 0, "step": 0, "shared": {"tied.weight": "second.weight"}}


def test_safetensors_of_others_have_no_notes(tmp_path):
    path = tmp_path / "strange.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path)
    assert read_notes(path) == {"shared": {}}
    assert read_weights(path)["a"].tolist() == [1.0]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.uint8]),
            st.lists(st.integers(0, 4), max_size=3),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_any_tensors_are_read_as_they_were_written(tmp_path, kinds):
    state = {}
    for i, (dtype, shape, again) in enumerate(kinds):
        state[f"t{i}"] = (torch.randn(shape) * 100).to(dtype)
        if again:
            state[f"same{i}"] = state[f"t{i}"]
            state[f"view{i}"] = state[f"t{i}"].flatten()[1:]
            state[f"turned{i}"] = state[f"t{i}"].T if len(shape) == 2 else state[f"t{i}"][None]
    path = tmp_path / "x.safetensors"
    write_weights({**state, "text": "left out"}, path, {"a": 1})
    read = read_weights(path)
    assert read.keys() == state.keys()
    assert all(read[k].dtype == v.dtype and torch.equal(read[k], v) for k, v in state.items())


def test_the_one_before_is_kept(tmp_path):
    saved(tmp_path, steps=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]
    steps = [read_notes(tmp_path / n / "model.safetensors")["step"] for n in ("previous", "last")]
    assert steps == [2, 3]
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "state.pt",
    ]
    assert (tmp_path / "last" / "state.pt").stat().st_mode & 0o777 != 0o600


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def garble(path):
    path.write_text('{"model.safetensors": 3}')


DAMAGE = [
    ("model.safetensors", flip, "model.safetensors is corrupted (its CRC-32 differs)"),
    ("state.pt", flip, "state.pt is corrupted (its CRC-32 differs)"),
    ("state.pt", cut, "state.pt has N-1 bytes, not N"),
    ("model.safetensors", cut, "model.safetensors has N-1 bytes, not N"),
    ("state.pt", Path.unlink, "state.pt cannot be read: No such file or directory"),
    ("manifest.json", Path.unlink, "manifest.json cannot be read: No such file or directory"),
    ("manifest.json", cut, None),
    ("manifest.json", garble, "manifest.json is damaged"),
    ("manifest.json", lambda path: path.write_text("[]"), "manifest.json is damaged"),
    ("manifest.json", lambda path: path.write_text("{}"), "manifest.json is damaged"),
    ("manifest.json", lambda path: path.write_bytes(b"\xff\0"), "manifest.json is damaged"),
]


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE)
def test_a_damaged_one_is_skipped_with_a_warning(tmp_path, name, damage, words):
    saved(tmp_path, steps=2)
    path = tmp_path / "last" / name
    size = path.stat().st_size
    damage(path)
    if words is None:  # only the final newline is gone
        assert newest_checkpoint(tmp_path)[0] == tmp_path / "last"
        return
    words = words.replace("N-1", f"{size - 1:,}").replace("N", f"{size:,}", words.count(", not N"))
    with pytest.warns(LrtoolWarning) as caught:
        path, state = newest_checkpoint(tmp_path)
    assert [str(w.message) for w in caught] == [f"{tmp_path / 'last'} is skipped: {words}"]
    assert path == tmp_path / "previous"
    assert state["position"]["step"] == 1


def test_any_flipped_bit_is_noticed(tmp_path):
    saved(tmp_path)
    for path in sorted((tmp_path / "last").iterdir()):
        if path.name == "manifest.json":
            continue
        content = path.read_bytes()
        for at in range(0, len(content), max(1, len(content) // 20)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
            with pytest.warns(LrtoolWarning, match="is corrupted"):
                assert newest_checkpoint(tmp_path) is None
        path.write_bytes(content)
    assert newest_checkpoint(tmp_path) is not None


def test_an_empty_folder_and_no_folder_at_all(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "last").mkdir()
    words = "last is skipped: manifest.json cannot be read: No such file or directory"
    with pytest.warns(LrtoolWarning, match=re.escape(words)):
        assert newest_checkpoint(tmp_path) is None


def test_a_disk_that_fails_while_reading_is_a_problem_of_that_checkpoint(tmp_path, monkeypatch):
    saved(tmp_path, steps=2)
    real = checkpoint.crc_of

    def broken(path):
        if "last" in path.parts:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(checkpoint, "crc_of", broken)
    words = "last is skipped: a file cannot be read: Input/output error"
    with pytest.warns(LrtoolWarning, match=words):
        assert newest_checkpoint(tmp_path)[0] == tmp_path / "previous"


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["LRTOOL_TEST_TRAP"],)


def test_a_malicious_state_is_not_executed(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    monkeypatch.setenv("LRTOOL_TEST_TRAP", str(trap))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    saved(folder)
    last = folder / "last"
    torch.save({"position": Malice()}, last / "state.pt")
    (last / "manifest.json").unlink()
    checkpoint.seal(last)  # whoever can write the one can write the other
    words = (
        f"{last} is skipped: state.pt holds objects that are neither tensors nor plain values "
        f"({os.mkdir.__module__}.mkdir)"
    )
    with pytest.warns(LrtoolWarning, match=f"^{re.escape(words)}$"):
        assert newest_checkpoint(folder) is None
    assert not trap.exists()
    torch.load(last / "state.pt", weights_only=False)
    assert trap.exists()  # it would have worked


def reseal(last, state):
    """Put another state into a checkpoint, as whoever can write the one can write the other."""
    torch.save(state, last / "state.pt")
    (last / "manifest.json").unlink()
    checkpoint.seal(last)


def test_a_state_with_missing_or_mistyped_parts_is_skipped(tmp_path):
    saved(tmp_path)
    last = tmp_path / "last"
    state = torch.load(last / "state.pt", weights_only=True)
    strange = [3, [], None, {}, {**state, "average_updates": "4"}]
    for name in ("position", "best", "optimizer", "schedule", "extra", "buffers"):
        strange += [{**state, name: 3}, {k: v for k, v in state.items() if k != name}]
    for part in ("position", "best"):
        for name in state[part]:
            strange.append({**state, part: {**state[part], name: [1]}})
        strange.append({**state, part: {**state[part], "unknown": 1}})
    for other in strange:
        reseal(last, other)
        with pytest.warns(LrtoolWarning, match=r"last is skipped: state\.pt cannot be read: "):
            assert newest_checkpoint(tmp_path) is None
    reseal(last, state)
    assert newest_checkpoint(tmp_path) is not None


def test_a_plain_pickle_in_place_of_the_state_is_skipped(tmp_path):
    saved(tmp_path)
    last = tmp_path / "last"
    nested = []
    for _ in range(200):
        nested = [nested]
    for content in (pickle.dumps({"a": {1, 2}}), pickle.dumps(nested), b"", b"PK\3\4", b"\x80\x02"):
        (last / "state.pt").write_bytes(content)
        (last / "manifest.json").unlink()
        checkpoint.seal(last)
        with pytest.warns(LrtoolWarning, match=r"last is skipped: state\.pt (holds|cannot be)"):
            assert newest_checkpoint(tmp_path) is None


def test_parts_that_do_not_fit_are_an_error_with_the_checkpoints_name(tmp_path):
    saved(tmp_path)
    last = tmp_path / "last"
    state = torch.load(last / "state.pt", weights_only=True)
    for name, value in {
        "optimizer": {"state": 3, "param_groups": state["optimizer"]["param_groups"]},
        "schedule": {},
        "buffers": {"no.such": 3},
        "extra": {"weight": torch.ones(7)},
    }.items():
        with pytest.raises(UserError, match=f"^{re.escape(str(last))}: "):
            load_checkpoint(small(), last, {**state, name: value})
    with pytest.raises(UserError, match="damaged, or not a checkpoint of this training: 'scaler'"):
        load_checkpoint(small(scaler=True), last, {k: state[k] for k in state if k != "scaler"})


class Foreign:
    """A class of the user's own."""


def local():
    return lambda: 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Foreign(), f"{Foreign.__module__}.Foreign"),
        (local(), "Can't pickle local object"),
        (open, "io.open"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path, value, words):
    run = saved(tmp_path)
    run.optimizer.state[run.model.weight]["mine"] = value
    with pytest.raises(UserError) as caught:
        save_checkpoint(run, tmp_path)
    assert str(caught.value).startswith(
        "no checkpoint can be written: the state of the model or the optimizer holds objects that "
        f"are neither tensors nor plain values ({words}"
    )
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert newest_checkpoint(tmp_path)[1]["position"]["step"] == 1


class Killed(BaseException):
    """Stands for kill -9: nothing is cleaned up after it."""


def kill_at(monkeypatch, number):
    """Let the process die at the n-th thing that it does to the disk; return what it did."""
    done, calls = [], count()

    def wrap(owner, name):
        real = getattr(owner, name)

        def counted(*args, **kwargs):
            if done and done[-1] == "killed":
                raise Killed  # a dead process does nothing more
            if next(calls) == number:
                done.append("killed")
                raise Killed
            done.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in [
        (os, "fsync"),
        (os, "rmdir"),
        (os, "unlink"),
        (os, "mkdir"),
        (os, "rename"),
        (os, "replace"),
        (torch, "save"),
        (safetensors.torch, "save_file"),
    ]:
        wrap(owner, name)
    return done


@pytest.mark.parametrize("before", ["whole", "last_is_corrupt"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path, before):
    for number in count():
        folder = tmp_path / str(number)
        folder.mkdir()
        run = saved(folder, steps=2)
        if before == "last_is_corrupt":
            flip(folder / "last" / "state.pt")
        go_on(run, 1, (4, 3))
        with pytest.MonkeyPatch.context() as patch:
            done = kill_at(patch, number)
            with suppress(Killed):
                save_checkpoint(run, folder)
        oldest = {"whole": 2, "last_is_corrupt": 1}[before]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LrtoolWarning)
            found = newest_checkpoint(folder)
            assert found is not None, done
            assert found[1]["position"]["step"] in {oldest, 3}, done
            # killed once more while it goes on: the whole one is not lost by tidying up
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, number // 2)
                with suppress(Killed):
                    save_checkpoint(run, folder)
            assert newest_checkpoint(folder)[1]["position"]["step"] in {oldest, 3}, done
        save_checkpoint(run, folder)
        assert newest_checkpoint(folder)[0] == folder / "last"
        assert newest_checkpoint(folder)[1]["position"]["step"] == 3
        assert {path.name for path in folder.iterdir()} <= {"last", "previous"}
        if "killed" not in done:
            break
    assert number > 15
    assert done.count("rename") + done.count("replace") >= 3


def test_an_error_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    run = saved(tmp_path, steps=2)
    go_on(run, 1, (4, 3))
    real = Path.replace

    def refuse(path, target):
        if path.name == ".new":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        save_checkpoint(run, tmp_path)
    found = newest_checkpoint(tmp_path)
    assert found[0] == tmp_path / ".new"
    assert found[1]["position"]["step"] == 3
    monkeypatch.undo()
    go_on(run, 1, (4, 3))
    save_checkpoint(run, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "previous"]
    steps = [read_notes(tmp_path / n / "model.safetensors")["step"] for n in ("previous", "last")]
    assert steps == [3, 4]


@contextmanager
def largest_file(size):
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "name"),
    [(60, "model.safetensors"), (9_000, "model.safetensors"), (30_000, "state.pt")],
)
def test_a_full_disk_is_an_os_error_and_the_old_one_survives(tmp_path, size, name):
    run = training("momentum", model=nn.Linear(100, 50), average=False)
    go_on(run, 1, (4, 100))
    save_checkpoint(run, tmp_path)
    with pytest.raises(OSError, match="File too large") as caught, largest_file(size):
        save_checkpoint(run, tmp_path, more=torch.zeros(5_000))
    assert caught.value.errno == errno.EFBIG
    assert Path(caught.value.filename).name == name
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert newest_checkpoint(tmp_path)[1]["position"]["step"] == 1
    go_on(run, 1, (4, 100))
    save_checkpoint(run, tmp_path)
    assert newest_checkpoint(tmp_path)[1]["position"]["step"] == 2


def test_weights_that_do_not_fit_the_disk_leave_the_old_ones(tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights({"a": torch.ones(10)}, path, {"epoch": 1})
    with pytest.raises(OSError, match="File too large"), largest_file(2_000):
        write_weights({"a": torch.ones(1_000)}, path, {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert read_notes(path)["epoch"] == 1


def test_a_checkpoint_of_another_model_or_optimizer(tmp_path):
    saved(tmp_path)
    found = newest_checkpoint(tmp_path)
    other = training("momentum", model=nn.Linear(3, 5), average=False)
    with pytest.raises(UserError) as caught:
        load_checkpoint(other, *found)
    assert str(caught.value).startswith(
        f"{tmp_path / 'last'}: does not fit this model: Error(s) in loading state_dict for Linear: "
        "size mismatch for weight"
    )
    model = nn.Linear(3, 2)
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    other = training("momentum", model=model, average=False)
    other.optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    with pytest.raises(UserError) as caught:
        load_checkpoint(other, *found)
    assert str(caught.value) == (
        f"{tmp_path / 'last'}: does not fit this optimizer: loaded state dict has a different "
        "number of parameter groups"
    )


def test_files_that_are_no_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    for read in (read_weights, read_notes):
        with pytest.raises(UserError, match=r"model\.safetensors: cannot be read: No such file"):
            read(path)
    path.write_bytes(b"\0" * 40)
    for read in (read_weights, read_notes):
        with pytest.raises(UserError, match=r"model\.safetensors: damaged, or not a safetensors f"):
            read(path)


def test_a_moving_average_is_copied_over_the_weights(tmp_path):
    run = training()
    go_on(run, 3)
    save_checkpoint(run, tmp_path)
    average = read_weights(tmp_path / "last" / "average.safetensors")
    with run.average.in_place():
        expected = {k: v.clone() for k, v in run.average.state().items()}
        averaged = {k: v.clone() for k, v in run.model.named_parameters(remove_duplicate=False)}
    other = Everything()
    load_average(other, average, tmp_path)
    found = dict(other.named_parameters(remove_duplicate=False))
    assert all(torch.equal(found[name], tensor) for name, tensor in averaged.items())
    assert "hidden" in average  # in no state dict, but averaged
    assert expected.keys() != averaged.keys()
    with pytest.raises(UserError) as caught:
        load_average(nn.Linear(2, 2), {"weight": torch.ones(2, 2)}, tmp_path)
    assert str(caught.value) == f"{tmp_path}: does not fit this model: bias is in one of them only"


def test_a_compiled_model_is_the_one_inside_it(tmp_path):
    inner = nn.Linear(3, 2)
    wrapped = torch.compile(inner, backend="eager")
    assert checkpoint.plain(wrapped) is inner
    assert checkpoint.plain(inner) is inner
    load_weights(wrapped, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path)
    assert inner.weight.sum() == 6


def test_the_first_bad_weight_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    model.register_buffer("unknown", torch.tensor([0.0, torch.nan]), persistent=False)
    model.register_buffer("cache", torch.zeros(0))
    began = finite_buffers(model)
    norm = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert began.keys() == {*norm, "cache"}
    assert first_bad_weight(model, began) is None  # what was so from the start may be meant
    model.cache = torch.full((3,), -torch.inf)
    model.register_buffer("later", torch.full((3,), -torch.inf))
    assert first_bad_weight(model, began) is None
    for value in (torch.nan, torch.inf):
        model[1].running_var[0] = value
        assert first_bad_weight(model, began) == "1.running_var"
    with torch.no_grad():
        model[2].bias[1] = torch.inf
    assert first_bad_weight(model, began) == "2.bias"
    assert first_bad_weight(nn.ReLU(), finite_buffers(nn.ReLU())) is None
    assert finite_buffers(nn.LazyBatchNorm1d()).keys() == {"num_batches_tracked"}


def test_the_manifest_knows_each_file(tmp_path):
    saved(tmp_path)
    last = tmp_path / "last"
    manifest = json.loads((last / "manifest.json").read_text())
    assert manifest == {
        name: {
            "bytes": len((last / name).read_bytes()),
            "crc32": zlib.crc32((last / name).read_bytes()),
        }
        for name in ("model.safetensors", "state.pt")
    }
