"""The benchmark on tiny patches: its numbers are consistent and stand where they are looked for."""

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from evaluation.benchmark import command, measured_networks, network_call, peak_memory, sampler_table, seams
from evaluation.benchmark.measured_networks import COMPILED, EAGER, FAST, REDUCED
from evaluation.benchmark.rank_scaling import measure_ranks
from evaluation.benchmark.section import Section
from evaluation.benchmark.timing import Timing, alternate
from evaluation.benchmark.whole_volume import measure_volume, plain_network
from evaluation.measures.image_fidelity import psnr
from evaluation.measures.patch_seams import seam_index
from guided_diffusion.checkpoints import load_checkpoint, save_checkpoint
from guided_diffusion.errors import InputError
from guided_diffusion.fast.fast_unet import FastSuperResModel
from guided_diffusion.methods.registry import METHODS
from guided_diffusion.pet.trial_manifest import MANIFEST_COLUMNS, read_cases
from tests.denoising import SMALL_HEADER
from tests.mpi import needs_mpiexec, run_script


def test_alternatives_take_turns():
    calls = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert [len(timing.wall) for timing in timings.values()] == [2, 2]


def test_ratios_compare_each_round_within_itself():
    """The machine was ten times slower in the last round, for both."""
    slow, fast = Timing([2.0, 3.0, 20.0], [4.0, 4.0, 4.0]), Timing([1.0, 1.0, 10.0], [1.0, 1.0, 1.0])
    assert fast.ratio_to(slow) == 2
    assert fast.cpu_ratio_to(slow) == 4
    assert fast.as_dict() == {"seconds": 1, "fastest": 1, "slowest": 10, "cpu_seconds": 1}


def test_operations_of_a_convolution_network():
    """Twice as many voxels take twice as many, but for the timestep's own products."""
    config = measured_networks.CONFIGS["shipped network"]
    small_patch, large_patch = (measured_networks.gigaflop(*config, (length, 16, 16)) for length in (4, 8))
    assert large_patch == pytest.approx(2 * small_patch, rel=0.01)
    first_convolution = 2 * 27 * 2 * 32 * 4 * 16 * 16 / 1e9
    assert small_patch > 100 * first_convolution


@pytest.fixture
def one_network(monkeypatch):
    monkeypatch.setattr(measured_networks, "CONFIGS", {"shipped network": measured_networks.CONFIGS["shipped network"]})
    monkeypatch.setattr(network_call, "_MAIN", "shipped network")
    monkeypatch.setattr(network_call, "keep_freed_memory", lambda: None)


@pytest.mark.usefixtures("one_network")
def test_without_a_compiler_or_a_count_of_memory_the_rest_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(peak_memory, "_RESET", tmp_path / "clear_refs")  # not there, as outside Linux
    section = network_call.measure_network(rounds=1, size=(4, 32, 32))
    assert {"ratio_compiled", "memory_ratio"}.isdisjoint(section.values)
    assert section.header[-1] == "faster"
    assert [row[1] for row in section.rows] == list(dict.fromkeys([EAGER, "float32 fast", FAST]))
    assert {len(row) for row in section.rows} == {len(section.header)}
    assert section.notes.endswith(
        "Memory: only under Linux. Compiled norms: not without a C++ compiler (no-such-compiler)."
    )


@pytest.mark.slow
@pytest.mark.usefixtures("one_network")
def test_network_section(monkeypatch):
    # Compiling takes minutes on a busy machine; tests/test_fast_unet.py has it.
    monkeypatch.setitem(measured_networks.VARIANTS, COMPILED, lambda model: FastSuperResModel(model, REDUCED))
    monkeypatch.setattr(network_call, "has_compiler", lambda: True)
    section = network_call.measure_network(rounds=1, size=(4, 32, 32))
    values = json.loads(json.dumps(section.values))
    measured = values["networks"]["shipped network"]
    seconds = {name: variant["seconds"] for name, variant in measured["variants"].items()}
    assert values["ratio_fast"] == pytest.approx(seconds[EAGER] / seconds[FAST])
    assert values["ratio_compiled"] == pytest.approx(seconds[EAGER] / seconds[COMPILED])
    assert values["ratio_fast_freed_memory_kept"] > 0
    peaks = measured["memory_mebibytes"]
    assert values["memory_ratio"] == pytest.approx(peaks[FAST] / peaks[EAGER])
    weights = (
        4 * sum(parameter.numel() for parameter in measured_networks.build("shipped network").parameters()) / 2**20
    )
    assert weights / 2 < peaks[FAST] < 2000
    assert measured["largest_float32_difference"] < 1e-5
    eager = measured["variants"][EAGER]
    assert eager["gflops"] == pytest.approx(measured["gigaflop"] / eager["seconds"])
    assert eager["share_of_peak"] == pytest.approx(eager["gflops"] / values["convolution_peak"]["float32"])
    assert section.markdown().count("\n| shipped network") == len({EAGER, "float32 fast", FAST, COMPILED})


def test_volume_section(small):
    values = measure_volume(str(small / "small.pt"), timed_steps=1, shape=(8, 8, 16)).values
    assert values["fast_calls"] == int(SMALL_HEADER.sampler.timestep_respacing)
    assert values["paper_steps"] == 1000
    assert values["ratio_to_paper"] == pytest.approx(values["paper_seconds"] / values["fast_seconds"])


def test_of_weights_that_answer_in_one_call_no_steps_are_named(tmp_path):
    header = replace(SMALL_HEADER, method="unet3d")
    network = METHODS["unet3d"].create_model(header.model, header.diffusion)
    save_checkpoint(tmp_path / "one.pt", network.state_dict(), header)
    section = measure_volume(str(tmp_path / "one.pt"), timed_steps=2, shape=(8, 8, 16))
    assert section.values["paper_steps"] == 1
    assert section.rows[0][:2] == ("one call in float32, plain PyTorch", "1")
    assert section.notes.startswith("These weights answer in one call, which was timed 2 times after one that was not")
    assert "steps" not in section.notes


def test_the_volume_is_compared_with_float32_whatever_weights_are_stored_in():
    model, diffusion = plain_network("checkpoint/demo_ddpm3d.pt")
    assert load_checkpoint("checkpoint/demo_ddpm3d.pt").state_dict["out.2.weight"].dtype == torch.float16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert diffusion.num_timesteps == 1000


@pytest.mark.slow
@needs_mpiexec
def test_ranks_section(small):
    seconds = measure_ranks(str(small / "small.pt"), 8, most_ranks=1, least_seconds=0).values["runs"]["1"]["seconds"]
    section = measure_ranks(str(small / "small.pt"), 8, most_ranks=2, least_seconds=4 * seconds)
    values = section.values
    assert values["in_plane"] > 8
    assert values["runs"]["1"]["seconds"] >= 4 * seconds
    one, two = values["runs"]["1"], values["runs"]["2"]
    assert one["efficiency"] == 1
    assert two["efficiency"] == pytest.approx(one["seconds"] / (2 * two["seconds"]))
    assert values["efficiency"] == values["runs"][str(values["efficiency_at"])]["efficiency"]
    assert all(0 < run["idle_share"] < 1 for run in values["runs"].values())
    assert len(section.rows) == 2


def test_files_and_order(monkeypatch, tmp_path, capsys):
    order = []

    def fake(name):
        def measure(_flags):
            order.append(name)
            return Section(name, name.title(), {"value": len(order)}, ("one", "two"), [("1", "2")], "A note.")

        return measure

    monkeypatch.setattr(command, "SECTIONS", {name: fake(name) for name in ("network", "volume")})
    files = ["--json", str(tmp_path / "b.json"), "--markdown", str(tmp_path / "b.md")]
    command.run_benchmark(command.create_parser("test"), ["--sections", "volume,network", *files])
    assert order == ["network", "volume"]
    assert json.loads((tmp_path / "b.json").read_text())["volume"] == {"value": 2}
    table = "**Volume**\n\n| one | two |\n| --- | --- |\n| 1 | 2 |\n\nA note.\n"
    assert (tmp_path / "b.md").read_text().endswith(table)
    assert table in capsys.readouterr().out


def test_an_unknown_section_is_refused():
    with pytest.raises(InputError, match="'speed' is unknown; choose from network, volume"):
        command.run_benchmark(command.create_parser("test"), ["--sections", "network,speed"])


def test_the_script_starts():
    done = run_script("scripts/benchmark.py", "--help")
    assert done.returncode == 0
    assert "--quick" in done.stdout


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """A trial of one subject at 1/20 of the dose, with a lesion of 12 mm in a noisy box."""
    rng = np.random.default_rng(0)
    shape, affine = (16, 20, 64), np.diag([-4.0, 4.0, 4.0, 1.0])
    normal = np.full(shape, 2.0, dtype=np.float32)
    labels = np.zeros(shape, dtype=np.uint8)
    labels[4:7, 10:13, 40:43] = 100
    normal[labels == 100] = 8.0
    low = normal + rng.standard_normal(shape).astype(np.float32)
    return write_trial(
        tmp_path_factory.mktemp("trial"), {"low_dose": low, "normal_dose": normal, "labels": labels}, affine
    )


def write_trial(folder, images, affine):
    images["truth"] = images["normal_dose"]
    for name, data in images.items():
        nib.save(nib.Nifti1Image(data, affine), folder / f"{name}.nii.gz")
    row = dict.fromkeys(MANIFEST_COLUMNS, "")
    row |= {"subject": "s", "dose": "0.05", "split": "validation", "voxel_mm": "4"}
    row |= {name: f"{name}.nii.gz" for name in images}
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    return folder


def test_samplers_section(small, trial):
    section = sampler_table.measure_samplers(str(small / "small.pt"), trial, longest=2)
    rows = section.values["walks"]
    calls = {(row["sampler"], row["timesteps"], row["start"]): row["nfe"] for row in rows}
    assert calls[("ddpm", "2", "noise")] == 2
    assert calls[("ddim", "logsnr1", "noise")] == 1
    assert calls[("ddim", "logsnr2", f"low dose, {sampler_table.LOW_DOSE_START}")] == 2
    case = next(iter(read_cases(trial)))
    slab = sampler_table.lesion_slab(case)
    assert slab.lesion.sum() == 27
    low, normal = (np.clip(nib.load(path).get_fdata(), 0, 16) for path in (case.low_dose, case.normal_dose))
    around = slice(37, 45)  # 8 slices around the lesion's middle, 41
    np.testing.assert_allclose(slab.low_dose.data.clip(0, 16), low[..., around], atol=1e-5)
    assert section.values["low_dose"]["psnr"] == pytest.approx(psnr(normal[..., around], low[..., around]), abs=1e-3)
    assert len(section.rows) == len(rows) + 1


def test_seams_section(small, trial, monkeypatch):
    monkeypatch.setitem(seams.WALKS["ancestral, 10 steps"], "timestep_respacing", "2")
    rows = seams.measure_seams(str(small / "small.pt"), trial, chain=True).values["ways"]
    assert [row["way"] for row in rows] == 2 * list(seams.WAYS)
    assert len({row["psnr"] for row in rows}) == 6
    assert all(row["seam_index"] > 0 for row in rows)


def test_seams_lie_on_the_grid_of_the_model(small, tmp_path, monkeypatch):
    """The trial has 32 slices of 8 mm, the model 64 of 4 mm, of which every patch has 32."""
    plans = []
    monkeypatch.setattr(
        seams,
        "seam_index",
        lambda truth, image, plan: plans.append((truth.copy(), plan)) or seam_index(truth, image, plan),
    )
    depth = np.broadcast_to(np.arange(1.0, 33, dtype=np.float32) / 4, (16, 20, 32))
    images = {"low_dose": depth, "normal_dose": depth, "labels": np.zeros(depth.shape, np.uint8)}
    folder = write_trial(tmp_path, images, np.diag([-4.0, 4.0, 8.0, 1.0]))
    rows = seams.measure_seams(str(small / "small.pt"), folder, chain=False).values["ways"]
    assert all(row["seam_index"] > 0 for row in rows)
    truth, plan = plans[0]
    assert truth.shape[2] == plan.length == 64
    # Slices of 4 mm lie a quarter of the thick ones before and behind their middles.
    np.testing.assert_allclose(truth[8, 10, 20:24], (11 + np.array([-0.25, 0.25, 0.75, 1.25])) / 4, atol=0.02)


@pytest.mark.parametrize("section", ["samplers", "seams"])
def test_sections_on_trials_ask_for_one(section, small):
    parser = command.create_parser("test")
    with pytest.raises(InputError, match=f"--sections {section} needs --trial"):
        command.run_benchmark(parser, ["--sections", section, "--model_path", str(small / "small.pt")])
