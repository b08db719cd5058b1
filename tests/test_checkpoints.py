"""Checkpoints: what goes in comes out, nothing executes, nothing partial stays, misfits are explained."""

import contextlib
import gzip
import io
import pickle
import resource
import zipfile

import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint, load_weights, save_checkpoint, save_plain
from guided_diffusion.config import (
    DEMO_DIFFUSION,
    DEMO_MODEL,
    DEMO_PREPROCESSING,
    DEMO_SAMPLER,
    RELEASED_DIFFUSION,
    RELEASED_MODEL,
    Header,
    SamplerConfig,
)
from guided_diffusion.errors import Failure, InputError
from guided_diffusion.script_util import create_model
from tests.golden_weights import LAYOUTS
from tests.mpi import ROOT, needs_mpiexec, succeed

HEADER = Header("ddpm3d", DEMO_MODEL, DEMO_DIFFUSION, DEMO_PREPROCESSING, DEMO_SAMPLER, {"steps": 7, "data": "virtual"})


class Evil:
    """Unpickling it would run code: it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_weights_and_header_survive(tmp_path):
    model = create_model(DEMO_MODEL, DEMO_DIFFUSION)
    save_checkpoint(tmp_path / "model.pt", model.state_dict(), HEADER)
    checkpoint = load_checkpoint(str(tmp_path / "model.pt"))
    assert checkpoint.header == HEADER
    assert checkpoint.state_dict.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(checkpoint.state_dict[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(("boolean", "sampler"), [(True, "ddim"), (False, "ddpm")])
def test_a_header_that_knows_two_samplers_is_understood(boolean, sampler):
    """As version 0.1.0 wrote it."""
    old = HEADER.as_dict() | {"sampler": {"use_ddim": boolean, "timestep_respacing": "5", "bfloat16": True}}
    assert Header.from_dict(old, "old.pt").sampler == SamplerConfig(sampler, timestep_respacing="5", bfloat16=True)
    with pytest.raises(InputError, match=r"old\.pt: .*'steps'"):
        Header.from_dict(old | {"sampler": {"steps": 5}}, "old.pt")


def test_the_shipped_weights_recommend_the_demo_sampler():
    header = load_checkpoint(str(ROOT / "checkpoint" / "demo_ddpm3d.pt")).header
    assert header.sampler == DEMO_SAMPLER


def test_a_plain_state_dict_has_no_header(tmp_path):
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "model.pt")
    checkpoint = load_checkpoint(str(tmp_path / "model.pt"))
    assert checkpoint.header is None
    assert checkpoint.state_dict["weight"].tolist() == [0, 1, 2]


def test_the_released_preset_is_the_published_layout():
    with torch.device("meta"):
        model = create_model(RELEASED_MODEL, RELEASED_DIFFUSION)
    assert {name: list(p.shape) for name, p in model.state_dict().items()} == LAYOUTS["released"]["state_dict"]


def test_pickled_code_does_not_run(tmp_path):
    evil = Evil(str(tmp_path / "executed"))
    with open(tmp_path / "evil.pt", "wb") as file:
        pickle.dump({"weight": evil}, file)
    torch.save({"weight": evil}, tmp_path / "evil_too.pt")
    for name in ("evil.pt", "evil_too.pt"):
        with pytest.raises(InputError, match=rf"{name}.*(not loaded|not a readable)"):
            load_checkpoint(str(tmp_path / name))
    assert not (tmp_path / "executed").exists()


def zip_of(*names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable PyTorch checkpoint: it is empty"),
        (b"PK\x03\x04 nonsense", "not a readable"),
        (b"text", "not"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "pointer of Git LFS .* run git lfs pull"),
        (b"/annex/objects/MD5E-s10--1.pt\n", "pointer of git-annex .* run datalad get"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page; download the file itself"),
        (gzip.compress(b"weights", mtime=0), "packed with gzip; unpack it first"),
        (b"\x89HDF\r\n\x1a\n", "a file of another program; save its weights alone"),
        (zip_of("model.pt"), "an archive of model.pt; unpack it"),
        (zip_of("net/constants.pkl", "net/data.pkl"), "a TorchScript program, not weights"),
        (len(b"{}").to_bytes(8, "little") + b"{}", "in the safetensors format; save its tensors with torch.save"),
    ],
)
def test_files_that_are_no_checkpoints(content, words, tmp_path):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_checkpoint(str(tmp_path / "model.pt"))


def test_a_truncated_checkpoint(tmp_path):
    save_checkpoint(tmp_path / "model.pt", {"weight": torch.zeros(1000)}, HEADER)
    whole = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.pt: not a readable"):
        load_checkpoint(str(tmp_path / "model.pt"))


def test_other_contents_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds a list"):
        load_checkpoint(str(tmp_path / "list.pt"))
    torch.save({"weight": 3}, tmp_path / "number.pt")
    with pytest.raises(InputError, match="no tensors"):
        load_checkpoint(str(tmp_path / "number.pt"))
    save_plain(tmp_path / "header.pt", {"header": {"method": "ddpm3d"}, "state_dict": {}})
    with pytest.raises(InputError, match=r"header\.pt: .*header cannot be read"):
        load_checkpoint(str(tmp_path / "header.pt"))
    torch.save({1: torch.zeros(2)}, tmp_path / "numbered.pt")
    with pytest.raises(InputError, match=r"numbered\.pt: .*have no names"):
        load_checkpoint(str(tmp_path / "numbered.pt"))


@pytest.mark.parametrize(("name", "value"), [("dims", 7), ("channel_mult", 3), ("num_channels", "wide")])
def test_a_senseless_header_is_refused_by_the_name_of_its_file(name, value):
    plain = HEADER.as_dict()
    plain["model"][name] = value
    with pytest.raises(InputError, match=r"some\.pt: .*header cannot be read"):
        Header.from_dict(plain, "some.pt")


@pytest.mark.parametrize(
    ("part", "name", "value", "words"),
    [
        ("preprocessing", "voxel_mm", [3.3, 3.3], r"voxel_mm \(3.3, 3.3\): three positive"),
        ("preprocessing", "voxel_mm", [3.3, 3.3, 0], "three positive"),
        ("preprocessing", "voxel_mm", [3.3, 3.3, float("nan")], "three positive"),
        ("preprocessing", "axis_codes", "PLL", "'PLL' name no three axes"),
        ("preprocessing", "axis_codes", 3, "not iterable"),
        ("preprocessing", "suv_max", 0, "suv_max 0: must be positive"),
        ("preprocessing", "suv_max", float("inf"), "suv_max inf: must be positive and finite"),
        ("preprocessing", "suv_max", "16", "not supported"),
        ("preprocessing", "patch_size", 0, "patch_size 0: at least 1"),
        ("preprocessing", "patch_size", 32.5, "patch_size 32.5: a whole number"),
        ("preprocessing", "overlap", 17, "overlap 17: from 0 to 16 for patches of 32"),
        ("sampler", "sampler", 3, "sampler 3: has the wrong type"),
        ("sampler", "start_from", None, "start_from None: has the wrong type"),
        ("sampler", "start_step", "x", "start_step 'x': has the wrong type"),
        ("sampler", "start_step", -1, "start_step -1: at least 0"),
        ("sampler", "timestep_respacing", 5, "timestep_respacing 5: has the wrong type"),
        ("sampler", "bfloat16", "no", "bfloat16 'no': has the wrong type"),
    ],
)
def test_a_senseless_grid_or_sampler_is_refused_by_the_name_of_its_file(part, name, value, words):
    plain = HEADER.as_dict()
    plain[part][name] = value
    with pytest.raises(InputError, match=rf"some\.pt: .*header cannot be read .*{words}") as refusal:
        Header.from_dict(plain, "some.pt")
    assert "\n" not in str(refusal.value)


def test_a_damaged_file_of_the_older_format_is_refused(tmp_path):
    torch.save({"weight": torch.arange(3.0)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "model.pt").read_bytes()
    assert load_checkpoint(str(tmp_path / "model.pt")).state_dict["weight"].tolist() == [0, 1, 2]
    for place in range(0, len(whole), 5):
        (tmp_path / "model.pt").write_bytes(whole[:place] + b"7" + whole[place + 1 :])
        with contextlib.suppress(InputError):  # bytes of a weight, for instance, may have any value
            load_checkpoint(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("name", ["weights", ".weights", "größe", "a.b.pt"])
def test_weights_are_written_under_any_name(name, tmp_path):
    save_plain(tmp_path / name, {"w": torch.ones(2)})
    save_plain(tmp_path / "other.pt", {"w": torch.ones(2)})
    assert load_checkpoint(str(tmp_path / name)).state_dict["w"].tolist() == [1, 1]
    assert (tmp_path / name).read_bytes() == (tmp_path / "other.pt").read_bytes()


def test_a_full_disk_gets_one_line(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        with pytest.raises(Failure, match=r"cannot write .*model.pt: File too large .*; make room or check the disk"):
            save_plain(tmp_path / "model.pt", {"w": torch.ones(2**17)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path):
    save_plain(tmp_path / "model.pt", {"step": 1})
    with pytest.raises(AttributeError):
        save_plain(tmp_path / "model.pt", {"step": lambda: 2})
    assert torch.load(tmp_path / "model.pt", weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_every_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = tmp_path / "model.pt"
    save_checkpoint(path, {"weight": torch.randn(300)}, HEADER)
    whole = path.read_bytes()
    first = whole.index(torch.load(path, weights_only=True)["state_dict"]["weight"].numpy().tobytes())
    for place in range(first, first + 1200, 37):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.pt: not a readable .* checksums"):
            load_checkpoint(str(path))


def quantised():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.arange(3), "holds int64, no weights"),
        (lambda: torch.ones(3, dtype=torch.bool), "holds bool, no weights"),
        (lambda: torch.ones(3, dtype=torch.complex64), "holds complex64, no weights"),
        (lambda: torch.eye(3).to_sparse(), "is sparse"),
        (quantised, "is quantised"),
        (lambda: torch.ones(3, device="meta"), "is without values"),
        (lambda: torch.tensor([1.0, float("nan")]), "NaN or infinite"),
        (lambda: torch.tensor([1.0, float("-inf")], dtype=torch.float16), "NaN or infinite"),
        (lambda: torch.ones(1).expand(10**6, 10**6), "claims more values"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights_get_one_line(make, words, tmp_path):
    torch.save({"first": torch.ones(2), "layer\n.weight": make()}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"model\.pt: layer\?\.weight .*{words}"):
        load_checkpoint(str(tmp_path / "model.pt"))


def test_weights_of_any_precision_become_float32(tmp_path):
    torch.save({"weight": torch.tensor([[1.5]]).half(), "bias": torch.tensor([2.5]).double()}, tmp_path / "model.pt")
    model = torch.nn.Linear(1, 1)
    load_weights(model, load_checkpoint(str(tmp_path / "model.pt")).state_dict, "model.pt")
    assert {name: (value.dtype, value.item()) for name, value in model.state_dict().items()} == {
        "weight": (torch.float32, 1.5),
        "bias": (torch.float32, 2.5),
    }


def unfolding():
    """Lists that share their entries: 2**60 numbers in a few hundred bytes."""
    value = [1, 1]
    for _ in range(60):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "num_res_blocks", 10**6),
        ("model", "num_res_blocks", True),
        ("model", "num_channels", 2**40),
        ("model", "num_channels", 32.0),
        ("model", "channel_mult", ",".join("1" * 30)),
        ("model", "channel_mult", "1,9999"),
        ("model", "low_res_scale", 1e30),
        ("model", "low_res_scale", float("nan")),
        ("model", "dropout", "none"),
        ("model", "attention_resolutions", "1," * 10**5 + "1"),
        ("diffusion", "diffusion_steps", 10**9),
        ("diffusion", "learn_sigma", "no"),
        ("preprocessing", "suv_max", 1e30),
        ("preprocessing", "suv_max", None),
        ("preprocessing", "voxel_mm", [1e-9, 1.0, 1.0]),
        ("preprocessing", "patch_size", 10**9),
        ("sampler", "timestep_respacing", "9" * 10**5),
        ("sampler", "start_step", 10**12),
        ("training", "more", unfolding()),
        ("training", "tensor", torch.ones(2)),
        ("training", "text", "x" * 10**6),
    ],
)
def test_a_header_beyond_reason_is_refused_before_anything_is_built(part, name, value, tmp_path, monkeypatch):
    monkeypatch.setattr(Header, "from_dict", lambda *_: pytest.fail("the header was used"))
    plain = HEADER.as_dict()
    plain[part][name] = value
    save_plain(tmp_path / "model.pt", {"header": plain, "state_dict": {}})
    with pytest.raises(InputError, match=r"model\.pt: the checkpoint's header cannot be read") as refusal:
        load_checkpoint(str(tmp_path / "model.pt"))
    assert len(str(refusal.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("header", [None, 3, [], "text", {"model": 3}, {"model": []}])
def test_a_header_of_another_kind_is_refused(header, tmp_path):
    save_plain(tmp_path / "model.pt", {"header": header, "state_dict": {}})
    with pytest.raises(InputError, match=r"model\.pt: the checkpoint's header cannot be read"):
        load_checkpoint(str(tmp_path / "model.pt"))


def test_dictionaries_that_hold_each_other_are_not_walked_through_for_ever(tmp_path):
    inner = {}
    for _ in range(3):
        inner = {str(number): inner for number in range(2000)}
    torch.save(inner, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: holds too many nested dictionaries"):
        load_checkpoint(str(tmp_path / "model.pt"))


@needs_mpiexec
def test_weights_that_are_replaced_while_ranks_start_are_the_same_on_all(tmp_path):
    """Each rank finds another file under the name, and all get the one that rank 0 found."""
    script = tmp_path / "read.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from guided_diffusion.dist_util import communicator, read_once\n"
        "rank = communicator().rank\n"
        "path = Path(sys.argv[1], f'of_rank_{rank}.pt')\n"
        "path.write_bytes(bytes([rank]) * 3_000_000)\n"
        "content = read_once(str(path))\n"
        "Path(sys.argv[1], f'read_{rank}').write_text(f'{len(content)} {set(content)}')\n"
    )
    succeed(script, tmp_path, ranks=3)
    assert [(tmp_path / f"read_{rank}").read_text() for rank in range(3)] == ["3000000 {0}"] * 3
