"""Each example configuration runs, from a copy that `lrtool init` makes."""

import gzip
import json
import resource

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lrtool.cli import init

NAMES = ["digits", "char_lm", "ci_smoke", "custom_model", "fashion_mnist", "lora", "regression"]
NAMES += ["tabular"]


def write_idx(folder, prefix, images, labels):
    """Files as MNIST has them: a magic number, big-endian sizes, bytes."""
    for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, array.ndim])
        head += b"".join(size.to_bytes(4, "big") for size in array.shape)
        path = folder / f"{prefix}-{name}.gz"
        path.write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


@pytest.fixture
def options(tmp_path):
    """What keeps the two large examples short: fewer steps, and files in Fashion-MNIST's format."""
    images, labels = load_digits(return_X_y=True)
    images = np.pad(np.kron(images.reshape(-1, 8, 8), np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    write_idx(tmp_path, "train", images[:600] * 15, labels[:600])
    write_idx(tmp_path, "t10k", images[600:700] * 15, labels[600:700])
    return {
        "fashion_mnist": [
            "--set",
            f"data.args.path={tmp_path}",
            "--set",
            f"data.validation={tmp_path}/t10k",
            "--steps",
            100,
            "--repeats",
            1,
            "--batch-size",
            20,
            "--set",
            "model.args.channels=[8, 16]",
        ],
        "char_lm": [
            *("--steps", 90, "--repeats", 1, "--batch-size", 8, "--set", "model.args.layers=1")
        ],
    }


def prepare(run, name):
    """What an example needs beside it: lora the network of another one, which its head tells of."""
    if name == "lora":
        pytest.importorskip("peft")
        assert run("init", "digits").returncode == 0
        short = ("--set", "train.epochs=2")
        done = run("train", "digits.yaml", "--lr", 0.003, "--output", "runs/upright", *short)
        assert done.returncode == 0, done.stderr


def processor_s():
    """The seconds that ended processes of this one have spent, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_these_are_all():
    assert init.names() == NAMES


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(request, options, name):
    run = request.getfixturevalue("lrtool" if name == "ci_smoke" else "here")
    copied = run("init", name)
    assert copied.returncode == 0, copied.stderr
    assert copied.stdout.splitlines()[0] == f"{name}.yaml"
    prepare(run, name)
    before = processor_s()
    done = run("find", f"{name}.yaml", "--json", "--output", "out", *options.get(name, []))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["suggestion"]["lr"] > 0
    assert report["suggestion"]["verdict"] in {"confident", "uncertain"}
    if name == "ci_smoke":
        assert processor_s() - before < 20  # under 10 on a machine of its own


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_trains(here, options, tmp_path, name):
    assert here("init", name).returncode == 0
    prepare(here, name)
    sets = [value for value in options.get(name, []) if str(value).startswith(("data.", "model."))]
    sets += ["train.epochs=null", "train.max_steps=3", "learning_rate=0.01"]
    flags = [part for value in sets for part in ("--set", value)]
    done = here("train", f"{name}.yaml", "--json", "--output", "out", *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["steps"]["step"]) == ("completed", [1, 2, 3])
    assert report["epochs"][-1]["validation_loss"] > 0
    assert (tmp_path / "out/model.safetensors").exists()


def test_init_refuses_to_replace_and_to_guess(here, write, tmp_path):
    assert here("init", "tabular").stdout.splitlines() == ["tabular.yaml", "tabular.csv"]
    again = here("init", "tabular")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "lrtool: error: tabular.yaml: exists already; add --overwrite to replace it\n"
    )
    assert here("init", "tabular.yaml", "--overwrite").returncode == 0
    mine = write("mine.yaml", "mine")
    (tmp_path / "tabular.yaml").unlink()
    (tmp_path / "tabular.yaml").symlink_to(mine)
    assert here("init", "tabular.yaml", "--overwrite").returncode == 0
    assert mine.read_text() == "mine"
    assert here("init", "digits", "--output", "new/folder").returncode == 0
    assert (tmp_path / "new/folder/digits.yaml").exists()
    unknown = here("init", "digitz")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == (
        "lrtool: error: no example is called 'digitz' (did you mean 'digits'?); "
        f"there are {', '.join(NAMES)}\n"
    )
