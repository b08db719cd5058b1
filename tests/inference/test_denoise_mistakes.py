"""What users of `scripts/test.py` may get wrong, and what they are told."""

import shutil

import numpy as np
import pytest

from guided_diffusion.commands import shipped_weights
from guided_diffusion.commands.denoise import denoise_subjects
from guided_diffusion.commands.denoise_flags import create_parser
from guided_diffusion.errors import InputError
from tests.denoising import GOLDEN_FLAGS, arguments_of, denoise, flags_of, samples_in
from tests.mpi import assert_refused, needs_mpiexec, run_script

BROKEN_INPUTS = {
    "missing": (None, "no such file"),
    "no_arr_0": (lambda path: np.savez(path, other=np.ones((2, 8, 8, 8))), "arr_0"),
    "axes": (lambda path: np.savez(path, arr_0=np.ones((8, 8))), "shape"),
    "nan": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), np.nan, np.float32)), "NaN"),
    "becquerel": (lambda path: np.savez(path, arr_0=np.full((2, 16, 16, 16), 5000, np.float32)), "Bq/mL"),
    "pickled": (lambda path: np.savez(path, arr_0=np.array([{}], dtype=object)), "pickle"),
}


@pytest.mark.parametrize("name", BROKEN_INPUTS)
def test_broken_input_is_refused(name, small, tmp_path):
    make, words = BROKEN_INPUTS[name]
    if make:
        make(tmp_path / "scan.npz")
    with pytest.raises(InputError, match=rf"scan\.npz.*{words}"):
        denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")
    assert not list((tmp_path / "out").glob("samples*"))


def test_truncated_npz_is_refused(small, tmp_path):
    (tmp_path / "scan.npz").write_bytes((small / "scan.npz").read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"scan\.npz"):
        denoise(tmp_path / "scan.npz", small / "small.pt", tmp_path / "out")


def test_empty_folder_is_refused(small, tmp_path):
    (tmp_path / "series").mkdir()
    with pytest.raises(InputError, match="series: the folder is empty"):
        denoise(tmp_path / "series", small / "small.pt", tmp_path / "out")


def test_unwritable_save_dir_is_refused(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        denoise(small / "scan.npz", small / "small.pt", tmp_path / "file" / "out")


def test_weights_that_do_not_fit_are_refused_with_advice(golden_files, tmp_path):
    with pytest.raises(InputError, match=r"model\.pt.*misshapen.*--num_channels 32"):
        denoise(*golden_files, tmp_path, *flags_of(GOLDEN_FLAGS | {"num_channels": 64}))


def test_wrong_number_of_samples_is_refused(golden_files, tmp_path):
    with pytest.raises(InputError, match=r"--num_samples 5.*6 patches"):
        denoise(*golden_files, tmp_path, "--num_samples", 5, *flags_of(GOLDEN_FLAGS))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--colour", "red"), "--colour"),
        (("--timestep_respacing", "x"), "respacing"),
        (("--timestep_respacing", "2000"), "2000 of a section's 1000"),
        (("--use_ddim", "perhaps"), "use_ddim"),
        (("--use_ddim", "True", "--sampler", "dpmpp_2m"), "--use_ddim True contradicts --sampler dpmpp_2m"),
        (("--sampler", "euler"), "--sampler"),
        (("--start_step", "100"), "needs --start_from low_dose"),
        (("--start_from", "low_dose"), "needs --start_step"),
        (("--start_from", "low_dose", "--start_step", "1000"), "--start_step 1000: not a timestep of 0 to 999"),
        (("--batch_size", "0"), "batch_size"),
        (("--seed", "-1"), "seed"),
        (("--seed", str(2**63)), "from 0 to below"),
        (("--realisations", "0"), "realisations"),
        (("--fuse", "each_step", "--noise", "per_patch"), "--noise field"),
        (("--threads", "-1"), "threads"),
        (("--model_path", "nowhere://model.pt"), "cannot be fetched"),
        (("--write_dicom", "True"), "needs a DICOM input"),
        (("--attention_resolutions", "x"), "comma list of positive"),
        (("--attention_resolutions", "0"), "comma list of positive"),
        (("--channel_mult", "2²"), "comma list of positive"),
        (("--channel_mult", "a"), "comma list of positive"),
        (("--num_channels", "30"), "multiple of 32"),
        (("--num_heads", "0"), "num_heads 0: at least 1"),
        (("--num_heads_upsample", "0"), "num_heads_upsample 0: at least 1"),
        (("--num_head_channels", "0"), "num_head_channels 0: at least 1"),
        (("--diffusion_steps", "0"), "at least 1"),
        (("--dropout", "2"), "dropout"),
        (("--dims", "4"), "2 or 3"),
        (("--patch_size", "8", "--overlap", "7"), "overlap"),
        (("--model_path", "nothing.pt"), "nothing.pt: no such"),
        (("--base_samples", ""), "--base_samples: is empty: an unset variable"),
        (("--model_path", ""), "--model_path: is empty: an unset variable"),
        (("--save_dir", ""), "--save_dir: is empty: an unset variable"),
    ],
)
def test_senseless_flags_are_refused(arguments, words, small, tmp_path):
    with pytest.raises(InputError, match=words):
        denoise(small / "scan.npz", small / "small.pt", tmp_path, *arguments)


def test_without_weights_beside_the_package_it_is_said_what_to_give(small, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped_weights, "DEFAULT_WEIGHTS", tmp_path / "checkpoint" / "local3d.pt")
    with pytest.raises(InputError, match=r"--model_path is missing, and .*checkpoint/local3d\.pt.*: give a checkpoint"):
        denoise_subjects(
            create_parser("test"), ["--base_samples", str(small / "scan.npz"), "--save_dir", str(tmp_path)]
        )


@needs_mpiexec
def test_a_mistake_is_one_line_from_one_rank(small, tmp_path):
    nothing = arguments_of(tmp_path / "nothing.npz", small / "small.pt", tmp_path / "out")
    for ranks in (0, 3):
        assert_refused(run_script("scripts/test.py", *nothing, ranks=ranks), "nothing.npz", "no such file")
    senseless = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out", "--timestep_respacing", "x")
    assert_refused(run_script("scripts/test.py", *senseless, ranks=3), "respacing")
    threads = arguments_of(small / "scan.npz", small / "small.pt", tmp_path / "out", "--threads", -1)
    assert_refused(run_script("scripts/test.py", *threads, ranks=3), "--threads -1")


def test_the_example_for_192_304_612_checks_the_number_of_patches(small, tmp_path):
    arguments = arguments_of(small / "scan.npz", small / "small.pt", tmp_path)
    assert_refused(
        run_script("scripts/test_192_304_612.py", *arguments),
        "--num_samples 7",
        "73 slices take 1 patches",
        "or none to scripts/test.py",
    )


@pytest.fixture(scope="module")
def with_a_bad_one(small, tmp_path_factory):
    """Three subjects, the first and the second of which cannot be read."""
    folder = tmp_path_factory.mktemp("subjects")
    (folder / "a.npz").write_bytes((small / "scan.npz").read_bytes()[:-5000])
    np.savez(folder / "b.npz", arr_0=np.full((2, 16, 16, 16), np.nan, np.float32))
    shutil.copy(small / "scan.npz", folder / "c.npz")
    return folder


QUICK = ("--timestep_respacing", "1")


def check_the_good_one_is_denoised(small, out, alone):
    assert [file.name for file in sorted(out.glob("*/*"))] == ["run.json", "samples_18x21x73.npz"]
    expected = samples_in(denoise(small / "scan.npz", small / "small.pt", alone, *QUICK))
    np.testing.assert_array_equal(samples_in(out / "c"), expected)
    failures = [line for line in (out / "log.txt").read_text().splitlines() if "failed: " in line]
    assert [name in line for name, line in zip(("a.npz", "b.npz: has NaN"), failures, strict=True)] == [True, True]


def test_a_bad_subject_does_not_keep_the_others_from_being_denoised(with_a_bad_one, small, tmp_path):
    with pytest.raises(InputError, match=r"^2 of 3 subjects failed: .*out/log\.txt$"):
        denoise(with_a_bad_one, small / "small.pt", tmp_path / "out", *QUICK)
    check_the_good_one_is_denoised(small, tmp_path / "out", tmp_path / "alone")


@needs_mpiexec
def test_all_ranks_go_on_after_a_bad_subject(with_a_bad_one, small, tmp_path):
    done = run_script(
        "scripts/test.py", *arguments_of(with_a_bad_one, small / "small.pt", tmp_path / "out", *QUICK), ranks=3
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == [
        f"error: 2 of 3 subjects failed: see 'failed:' in {tmp_path / 'out'}/log.txt"
    ]
    check_the_good_one_is_denoised(small, tmp_path / "out", tmp_path / "alone")


@pytest.mark.parametrize(("flag", "value"), [("weight_kg", 70), ("dose_bq", 3e8), ("injection_time", "101013")])
def test_what_is_true_of_one_patient_is_not_taken_for_several(small, tmp_path, flag, value):
    (tmp_path / "scans").mkdir()
    for name in "ab":
        shutil.copy(small / "scan.npz", tmp_path / "scans" / f"{name}.npz")
    with pytest.raises(InputError, match=rf"--{flag} is of one scan, but .*scans holds 2; give the path of that one"):
        denoise(tmp_path / "scans", small / "small.pt", tmp_path / "out", f"--{flag}", value)
