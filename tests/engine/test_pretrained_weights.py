"""Pretrained weights: what is read of a file, what a model takes of it, and every refusal."""

import hashlib
import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from lrtool.engine.pretrained import Pretrained, load_pretrained, read_pretrained
from lrtool.errors import ConfigError, UserError


def net(outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            body=nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), head=nn.Linear(5, outputs)
        )
    )


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def held(tensors):
    return Pretrained(Path("a.pt"), Path("a.pt"), tensors, "")


def load(model, tensors, *, partial=False):
    return load_pretrained(model, held(tensors), partial=partial)


def problem(model, tensors, *, partial=False):
    with pytest.raises(ConfigError) as caught:
        load(model, tensors, partial=partial)
    (found,) = caught.value.problems
    assert found.path == ("model", "checkpoint")
    return found.message


@pytest.fixture
def trained():
    """Weights and statistics as no new model has them."""
    model = net(seed=1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 10)
    return model.state_dict()


class Positions(nn.Linear):
    """Takes positions for any length, as vision transformers do for other sizes of images."""

    def __init__(self):
        super().__init__(4, 3)
        self.positions = nn.Parameter(torch.zeros(1, 1, 4))

    def _load_from_state_dict(self, state, prefix, *args):
        name = f"{prefix}positions"
        state[name] = nn.functional.interpolate(state[name], size=4)
        super()._load_from_state_dict(state, prefix, *args)


@pytest.mark.parametrize("partial", [False, True])
def test_what_a_module_resizes_itself_is_loaded(partial):
    given = Positions().state_dict() | {"positions": torch.tensor([[[1.0, 1, 2, 2, 3, 3, 4, 4]]])}
    model = Positions()
    fit = load(model, given, partial=partial)
    assert set(fit.loaded) == {"weight", "bias", "positions"}
    assert not fit.reshaped
    assert model.positions.flatten().tolist() == [1, 2, 3, 4]
    assert torch.equal(model.weight, given["weight"])
    assert given["positions"].shape == (1, 1, 8)  # what was read stays, for the next start


class Indexed(nn.Linear):
    """Makes its buffer of positions itself, whatever the file has; and takes any scale."""

    def __init__(self, size):
        super().__init__(4, 3)
        self.register_buffer("places", torch.arange(size))
        self.scale = nn.Parameter(torch.zeros(2))

    def _load_from_state_dict(self, state, prefix, *args):
        state.pop(f"{prefix}places", None)
        self.scale = nn.Parameter(state.pop(f"{prefix}scale"))
        missing = args[2]
        super()._load_from_state_dict(state, prefix, *args)
        missing[:] = [name for name in missing if name not in {f"{prefix}places", f"{prefix}scale"}]


def test_what_a_module_makes_itself_or_puts_in_place_is_no_misfit():
    given = Indexed(9).state_dict() | {"scale": torch.ones(5)}
    model = Indexed(4)
    load(model, given)
    assert model.scale.tolist() == [1] * 5
    assert model.places.tolist() == [0, 1, 2, 3]


class Lenient(nn.Linear):
    """Leaves out by itself what does not fit, without a word."""

    def load_state_dict(self, state, **_):
        own = self.state_dict()
        fits = {name: value for name, value in state.items() if own[name].shape == value.shape}
        return super().load_state_dict(fits, strict=False)


def test_what_a_model_leaves_out_by_itself_is_not_loaded():
    given = {"weight": torch.ones(5, 4), "bias": torch.ones(3)}
    assert "weight is 5 × 4 and not 3 × 4" in problem(Lenient(4, 3), given)
    model = Lenient(4, 3)
    fit = load(model, given, partial=True)
    assert (set(fit.loaded), set(fit.reshaped)) == ({"bias"}, {"weight"})
    assert model.bias.tolist() == [1, 1, 1]


@pytest.mark.parametrize("partial", [False, True])
def test_adapters_are_not_taken_for_fresh_layers(partial):
    tensors = net().state_dict()
    adapted = {
        name.replace("body.0.", "body.0.base_layer."): value for name, value in tensors.items()
    }
    assert problem(net(), adapted, partial=partial) == (
        "a.pt has the weights of a model with adapters (PEFT), such as body.0.base_layer.weight: "
        "take those that its training started from, or merge the adapters into the model and save "
        "that (merge_and_unload)"
    )


def test_every_format_gives_the_same_tensors_and_the_same_digest(trained, tmp_path):
    safetensors.torch.save_file(trained, tmp_path / "a.safetensors")
    torch.save(trained, tmp_path / "b.pt")
    torch.save(trained, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": trained, "epoch": 3}, tmp_path / "d.ckpt")
    (tmp_path / "folder").mkdir()
    safetensors.torch.save_file(trained, tmp_path / "folder/model.safetensors")
    read = [
        read_pretrained(tmp_path / name)
        for name in ("a.safetensors", "b.pt", "c.bin", "d.ckpt", "folder")
    ]
    assert all(equal(each.tensors, trained) for each in read)
    digest = hashlib.sha256()
    for name in sorted(trained):
        value = trained[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert {each.digest for each in read} == {digest.hexdigest()}
    assert [each.taken_from for each in read] == [(), (), (), ("state_dict",), ()]
    assert read[4].path == tmp_path / "folder/model.safetensors"


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"model": {"w": torch.ones(1)}, "optimizer": {"state": {}}}, ("model",)),
        ({"model_state_dict": {"w": torch.ones(1)}}, ("model_state_dict",)),
        ({"model": {"state_dict": {"w": torch.ones(1)}}}, ("model", "state_dict")),
        ({"w": torch.ones(1), "model": torch.ones(2)}, ()),  # a parameter of that name
    ],
)
def test_a_state_dict_inside_a_dict_is_found(content, keys, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    pretrained = read_pretrained(tmp_path / "a.pt")
    assert pretrained.taken_from == keys
    assert torch.equal(pretrained.tensors["w"], torch.ones(1))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(2), "holds a Tensor, not a state dict"),
        ({"model": [torch.ones(2)]}, "holds no weights, but model; a state dict is looked for, "),
        ({}, "holds no weights, but nothing; "),
        (
            {"model": {"w": torch.ones(1)}, "state_dict": {"w": torch.ones(1)}},
            "holds several state dicts, state_dict and model; write one of them alone",
        ),
        (
            {"model": net()},
            "which are not read, as they could run code; write the weights alone: torch.save(",
        ),
    ],
)
def test_what_torch_save_wrote_and_is_no_state_dict_is_refused(content, words, tmp_path):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(UserError) as caught:
        read_pretrained(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is neither a safetensors file nor a state dict that torch.save wrote"),
        (b"\x89HDF\r\n\x1a\n", "is neither a safetensors file nor a state dict that"),
        (b"version https://git-lfs", "is a pointer of Git LFS; git lfs pull fetches the file"),
        (b"\x10" + bytes(7) + b"{damaged", "damaged, or not a safetensors file: "),
        (b"PK\x03\x04 and nothing else", "damaged, or not a state dict that torch.save wrote: "),
    ],
)
def test_other_files_are_refused(content, words, tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_pretrained(path)
    assert str(caught.value).startswith(f"{path}: {words}")


def in_parts(folder, tensors, named=None):
    """Write weights as the Hub holds large ones: two files, and an index of them."""
    names, files = list(tensors), ("model-00001-of-00002", "model-00002-of-00002")
    where = {name: f"{files[place % 2]}.safetensors" for place, name in enumerate(names)}
    for file in set(where.values()):
        part = {name: tensors[name] for name in names if where[name] == file}
        safetensors.torch.save_file(part, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": named or where}))
    return index


def test_weights_in_several_files_are_read_by_their_index(trained, tmp_path):
    (tmp_path / "parts").mkdir()
    index = in_parts(tmp_path / "parts", trained)
    torch.save(trained, tmp_path / "whole.pt")
    whole = read_pretrained(tmp_path / "whole.pt")
    for named in (index, tmp_path / "parts"):
        read = read_pretrained(named)
        assert equal(read.tensors, trained)
        assert (read.named, read.path, read.digest) == (named, index, whole.digest)


def test_each_tensor_is_that_of_the_file_which_the_index_names(trained, tmp_path):
    index = in_parts(tmp_path, trained)
    where = json.loads(index.read_text())["weight_map"]
    for file in set(where.values()):  # each holds all names, and those of the other one are stale
        own = {n: v if where[n] == file else torch.zeros_like(v) for n, v in trained.items()}
        safetensors.torch.save_file(own, tmp_path / file)
    assert equal(read_pretrained(index).tensors, trained)


def test_a_file_of_several_that_was_written_over_is_refused(trained, tmp_path):
    read = read_pretrained(in_parts(tmp_path, trained))
    part = tmp_path / "model-00002-of-00002.safetensors"
    with part.open("r+b") as file:
        file.write(file.read(1))
        os.utime(part, ns=(0, 0))
    with pytest.raises(ConfigError, match=f"{part} was written over while the run was under way"):
        load_pretrained(net(), read, partial=False)


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"head.bias": "../a.safetensors"}, "damaged, or not an index of weights: "),
        ({"head.bias": 3}, "damaged, or not an index of weights: "),
        ({"head.bias": INDEX}, "damaged, or not an index of weights: it names no file of weights"),
        (
            {
                "head.bias": "model-00001-of-00002.safetensors",
                "x": "model-00002-of-00002.safetensors",
            },
            "its files lack 1 key that it names: x; download them again",
        ),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(named, words, trained, tmp_path):
    index = in_parts(tmp_path, trained, named)
    with pytest.raises(UserError) as caught:
        read_pretrained(index)
    assert str(caught.value).startswith(f"{index}: {words}")


def test_a_missing_file_of_several_is_named(trained, tmp_path):
    index = in_parts(tmp_path, trained)
    part = tmp_path / "model-00002-of-00002.safetensors"
    part.unlink()
    with pytest.raises(UserError, match=f"{part}: cannot be read: No such file"):
        read_pretrained(index)


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(UserError) as caught:
        read_pretrained(tmp_path)
    words = "is a directory without model.safetensors, and no run that has weights"
    assert str(caught.value) == f"{tmp_path}: {words}"


def test_all_weights_and_statistics_are_loaded(trained):
    model = net()
    fit = load(model, trained)
    assert equal(model.state_dict(), trained)
    assert fit.loaded == tuple(trained)
    assert [*fit.missing, *fit.reshaped, *fit.unexpected, *fit.rounded] == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
def test_a_prefix_that_all_keys_share_is_left_out(prefix, trained):
    model = net()
    fit = load(model, {prefix + name: value for name, value in trained.items()})
    assert (fit.removed, fit.added) == (prefix, "")
    assert equal(model.state_dict(), trained)


def test_a_prefix_that_all_keys_of_the_model_share_is_added(trained):
    model = nn.ModuleDict({"net": net()})
    fit = load(model, trained)
    assert (fit.removed, fit.added) == ("", "net.")
    assert equal(model["net"].state_dict(), trained)


def test_a_prefix_that_model_and_file_have_stays(trained):
    body = {name: value for name, value in trained.items() if name.startswith("body.")}
    fit = load(net(), body, partial=True)
    assert (fit.removed, fit.added) == ("", "")
    assert fit.missing == ("head.weight", "head.bias")


def part(tensors, prefix):
    """Of a state dict, the names that begin with a prefix, without it."""
    found = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors[name] for name in found}


def under(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def test_the_weights_of_a_body_fit_a_part_of_the_model(trained):
    body, model, fresh = part(trained, "body."), net(), net().state_dict()
    fit = load(model, {**body, "fc.weight": torch.ones(9, 5)}, partial=True)
    assert (fit.removed, fit.added) == ("", "body.")
    assert fit.missing == ("head.weight", "head.bias")
    assert fit.unexpected == ("body.fc.weight",)
    assert equal(part(model.state_dict(), "body."), body)
    assert equal(part(model.state_dict(), "head."), part(fresh, "head."))
    assert problem(net(), body) == (
        "a.pt, with body. added to its names, does not fit the model: 2 keys missing in the file: "
        "head.weight, head.bias. model.partial: true loads the other 7 keys, and leaves what does "
        "not fit at fresh values"
    )


@pytest.mark.parametrize(
    ("prefix", "more"),
    [("module.", "n_averaged"), ("model.", "criterion.weight"), ("model.net.", "model.loss.w")],
)
def test_a_prefix_that_all_but_one_key_share_is_left_out(prefix, more, trained):
    model, tensors = net(), {more: torch.ones(2, 2), **under(prefix, trained)}
    fit = load(model, tensors, partial=True)
    assert (fit.removed, fit.added, fit.unexpected) == (prefix, "", (more,))
    assert equal(model.state_dict(), trained)
    assert problem(net(), tensors) == (
        f"a.pt, with {prefix} left out of its names, does not fit the model: 1 key unknown to it: "
        f"{more}. model.partial: true loads the other 9 keys, and leaves what does not fit at "
        "fresh values"
    )


def test_the_weights_around_a_body_fit_the_body_alone(trained):
    body = net().body
    more = under("projector.", {f"{n}.weight": torch.ones(5, 5) for n in range(20)})
    fit = load(body, {**trained, **more}, partial=True)
    assert (fit.removed, fit.added) == ("body.", "")
    assert equal(body.state_dict(), part(trained, "body."))


@pytest.mark.parametrize("more", [{}, {"n_averaged": torch.ones(())}])
def test_one_prefix_takes_the_place_of_another(more, trained):
    model = nn.ModuleDict({"net": net()})
    tensors = {**under("module.", trained), **more}
    fit = load(model, tensors, partial=bool(more))
    assert (fit.removed, fit.added) == ("module.", "net.")
    assert (fit.missing, fit.unexpected) == ((), tuple(more))
    assert equal(model["net"].state_dict(), trained)
    del tensors["module.head.bias"]
    assert problem(nn.ModuleDict({"net": net()}), tensors).startswith(
        "a.pt, with module. in its names replaced by net., does not fit the model: 1 key missing "
        "in the file: net.head.bias"
    )


def test_two_parts_that_would_fit_as_well_are_named(trained):
    twins = nn.ModuleDict({"student": net(), "teacher": net()})
    assert problem(twins, trained, partial=True) == (
        "a.pt fits the model in several ways: with student. added to its names, or with teacher. "
        "added to its names; write a file with the names of the model"
    )
    both = {**under("student.", trained), **under("teacher.", trained)}
    words = "in several ways: with student. left out of its names, or with teacher. left out of its"
    assert words in problem(net(), both)
    assert load(twins, both).loaded == tuple(both)
    # Nor does one that fits as it is decide, or one part that lies deeper.
    twins["scale"] = nn.Linear(1, 1, bias=False)
    more = {**trained, "scale.weight": torch.ones(1, 1)}
    assert "with student. added to its names, or" in problem(twins, more, partial=True)
    deeper = nn.ModuleDict({"student": net(), "teacher": nn.ModuleDict({"module": net()})})
    words = "with student. added to its names, or with teacher.module. added to its names;"
    assert words in problem(deeper, trained, partial=True)
    both = {**under("net.", trained), **under("ema.module.", trained)}
    assert "in several ways: with net. left out" in problem(net(), both, partial=True)
    # Two names of one part are one way.
    part = net()
    assert load(nn.ModuleDict({"student": part, "same": part}), trained, partial=True).loaded


def test_two_names_that_would_become_one_are_left_alone(trained):
    body = {**under("module.", trained), "body.0.weight": torch.ones(9)}
    assert problem(net(), body, partial=True).startswith("none of the 10 keys of a.pt fits the ")


def test_layers_that_are_alike_by_chance_do_not_fit(trained):
    other = {"a.w": torch.ones(2), "b.w": torch.ones(3), "c.weight": torch.ones(3, 5)}
    assert problem(net(), other, partial=True).startswith("none of the 3 keys of a.pt fits the ")
    blocks = nn.Sequential(OrderedDict(blocks=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))))
    tensors = part(blocks.state_dict(), "blocks.")
    assert (
        load(nn.ModuleDict({"net": blocks, "head": nn.Linear(4, 1)}), tensors, partial=True).added
        == "net.blocks."
    )
    # What fits under its own names is not moved, though a layer that the model lacks would fit.
    extra = {**trained, "old.weight": torch.ones(2, 5), "old.bias": torch.ones(2)}
    fit = load(net(2), extra, partial=True)
    assert (fit.removed, fit.added) == ("", "")
    assert set(fit.unexpected) == {"old.weight", "old.bias"}


def test_what_does_not_fit_is_named_with_what_to_do(trained):
    trained["old.weight"] = torch.ones(1)
    del trained["body.1.running_var"], trained["body.1.bias"]
    assert problem(net(2), trained) == (
        "a.pt does not fit the model: 2 keys missing in the file: body.1.bias, "
        "body.1.running_var; 1 key unknown to it: old.weight; 2 keys of another shape: "
        "head.weight is 3 × 5 and not 2 × 5, head.bias is 3 and not 2. model.partial: true loads "
        "the other 5 keys, and leaves what does not fit at fresh values"
    )


def test_many_names_are_cut_short():
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(9)))
    words = problem(model, {"0.weight": torch.ones(1, 1)})
    assert "17 keys missing in the file: 0.bias, 1.weight, 1.bias, 2.weight, …. " in words


def test_in_part_what_does_not_fit_stays_fresh(trained):
    model, fresh = net(2), net(2).state_dict()
    trained["old.weight"] = torch.ones(1)
    del trained["body.1.bias"]
    fit = load(model, trained, partial=True)
    for name, value in model.state_dict().items():
        is_fresh = name in {"head.weight", "head.bias", "body.1.bias"}
        assert torch.equal(value, fresh[name] if is_fresh else trained[name]), name
    assert fit.missing == ("body.1.bias",)
    assert fit.unexpected == ("old.weight",)
    assert fit.reshaped == {"head.weight": ((3, 5), (2, 5)), "head.bias": ((3,), (2,))}


@pytest.mark.parametrize("partial", [False, True])
def test_weights_of_another_model_are_refused_even_in_part(partial):
    words = problem(net(), {"conv.weight": torch.ones(2)}, partial=partial)
    assert words == (
        "none of the 1 key of a.pt fits the model: the file has conv.weight, the model "
        "body.0.weight, body.0.bias, body.1.weight, body.1.bias, …; these are the weights of "
        "another model"
    )
    shapes = problem(nn.Linear(2, 2), {"weight": torch.ones(3, 3)}, partial=partial)
    assert "; weight is 3 × 3 and not 2 × 2; these are" in shapes


def test_a_tied_weight_may_stand_under_one_of_its_names_and_not_with_two_values():
    def tied():
        model = nn.ModuleDict({"embed": nn.Embedding(3, 2), "out": nn.Linear(2, 3, bias=False)})
        model["out"].weight = model["embed"].weight
        return model

    value = torch.randn(3, 2)
    for names in (["embed.weight"], ["out.weight"], ["embed.weight", "out.weight"]):
        model = tied()
        assert load(model, dict.fromkeys(names, value)).missing == ()
        assert torch.equal(model["embed"].weight, value)
        assert model["embed"].weight is model["out"].weight
    assert problem(tied(), {"embed.weight": value, "out.weight": value + 1}) == (
        "a.pt: embed.weight and out.weight are one tensor in the model, and differ in the file; "
        "leave one of them out, or untie them"
    )


def test_only_what_loses_precision_is_said_to_be_rounded():
    model = nn.Linear(2, 1)
    exact, inexact = torch.tensor([[0.5, 2.0]]).double(), torch.tensor([0.1], dtype=torch.float64)
    fit = load(model, {"weight": exact, "bias": inexact})
    assert fit.rounded == {"bias": (torch.float64, torch.float32)}
    assert torch.equal(model.weight, exact.float())
    assert torch.equal(model.bias, inexact.float())
    assert load(model, {"weight": exact.half(), "bias": inexact.bfloat16()}).rounded == {}


def test_a_weight_that_is_not_a_number_is_refused():
    words = problem(
        nn.Linear(1, 2), {"weight": torch.ones(2, 1), "bias": torch.tensor([1, torch.nan])}
    )
    assert words == "a.pt: the weight bias holds NaN; take an earlier checkpoint"


def test_files_from_before_batches_were_counted_fit(trained):
    del trained["body.1.num_batches_tracked"]
    assert load(net(), trained).missing == ()


def test_a_method_of_the_models_own_may_return_nothing():
    class Own(nn.Linear):
        def load_state_dict(self, state, strict=True):  # noqa: FBT002  (torch's signature)
            super().load_state_dict(state, strict=strict)

    model = Own(1, 1)
    fit = load(model, {"weight": torch.full((1, 1), 3.0), "more": torch.ones(1)}, partial=True)
    assert (fit.loaded, fit.missing, fit.unexpected) == (("weight",), ("bias",), ("more",))
    assert model.weight.item() == 3


def test_small_floats_are_converted():
    model, value = nn.Linear(1, 2), torch.tensor([0.5, -2.0])
    load(model, {"weight": value[:, None].to(torch.float8_e4m3fn), "bias": value.half()})
    assert torch.equal(model.weight, value[:, None])
    assert torch.equal(model.bias, value)


def test_a_lazy_layer_takes_the_shape_of_its_weight():
    model = nn.LazyLinear(2)
    weight = torch.randn(2, 7)
    assert load(model, {"weight": weight, "bias": torch.zeros(2)}).loaded == ("weight", "bias")
    assert torch.equal(model.weight, weight)


def test_a_hook_that_fails_is_an_error_with_the_file():
    class Fails(nn.Linear):
        def _load_from_state_dict(self, *_):
            raise LookupError("no luck")

    words = problem(Fails(1, 1), {"weight": torch.ones(1, 1)})
    assert words == "a.pt cannot be loaded into the model: no luck"
