"""What a continued run takes over, what it says of changed flags, and what its header remembers."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints import load_checkpoint, read_plain, save_checkpoint
from guided_diffusion.errors import InputError
from guided_diffusion.script_util import create_model
from guided_diffusion.training.history import extended
from guided_diffusion.training.settings import training_settings
from guided_diffusion.training.step import TrainStep
from tests.training_runs import TINY, TWO_STEPS, rows, run, weights


def history(path):
    return load_checkpoint(str(path)).header.training["history"]


def notices(caplog):
    return [record.message for record in caplog.records if record.message.startswith("notice")]


@pytest.fixture
def begun(data_dir, tmp_path):
    """The folder of a run of two steps."""
    run(data_dir, tmp_path / "run", max_steps=2, lr_anneal_steps=10)
    return tmp_path / "run"


class TestHistory:
    def test_changed_flags_are_told_and_kept(self, begun, data_dir, caplog):
        with caplog.at_level("INFO", "guided_diffusion"):
            run(data_dir, begun, max_steps=3, lr_anneal_steps=10)
            assert notices(caplog) == []
            run(data_dir, begun, max_steps=4, lr_anneal_steps=8, seed=1)
            run(data_dir, begun, max_steps=5, lr_anneal_steps=8, seed=0, grad_clip=0.5)
        told = "notice: flags differ from those that the run began with: "
        # In the order of --help.
        assert notices(caplog) == [
            told + "lr_anneal_steps 10 -> 8, seed 0 -> 1",
            told + "lr_anneal_steps 10 -> 8, grad_clip 0.0 -> 0.5",
        ]
        first, *changes = history(begun / "model000005.pt")
        assert first["from_step"] == 1
        assert first["flags"]["lr_anneal_steps"] == 10
        assert first["flags"]["crops_per_step"] == 2
        assert first["flags"]["crop_size"] == "8,8,4"
        assert changes == [
            {"from_step": 4, "flags": {"lr_anneal_steps": 8, "seed": 1}},
            {"from_step": 5, "flags": {"seed": 0, "grad_clip": 0.5}},
        ]
        assert history(begun / "ema_0.9_000004.pt") == [first, changes[0]]
        assert history(begun / "model000003.pt") == [first]
        rates = [float(row["lr"]) for row in rows(begun / "progress.csv")]
        assert rates == pytest.approx([1e-3, 9e-4, 8e-4, 1e-3 * 5 / 8, 1e-3 * 4 / 8], rel=1e-4)

    def test_of_the_checkpoint_that_is_continued(self, begun, data_dir):
        run(data_dir, begun, max_steps=3, lr=1e-4)
        run(data_dir, begun, max_steps=3, lr_anneal_steps=10, resume_checkpoint=str(begun / "model000002.pt"))
        assert [entry["from_step"] for entry in history(begun / "model000003.pt")] == [1]

    def test_begins_where_a_run_without_one_goes_on(self, begun, data_dir, caplog):
        old = load_checkpoint(str(begun / "model000002.pt"))
        training = {name: value for name, value in old.header.training.items() if name != "history"}
        save_checkpoint(begun / "model000002.pt", old.state_dict, replace(old.header, training=training))
        (begun / "digests000002.json").unlink()
        with caplog.at_level("INFO", "guided_diffusion"):
            run(data_dir, begun, max_steps=3, lr=1e-4)
        (entry,) = history(begun / "model000003.pt")
        assert entry["from_step"] == 3
        assert entry["flags"]["lr"] == 1e-4
        assert notices(caplog) == []

    def test_names_folders_without_their_paths(self, begun, data_dir):
        assert history(begun / "model000002.pt")[0]["flags"]["data_dir"] == data_dir.name

    def test_other_pairs_under_the_same_name_are_told(self, tmp_path, caplog):
        for fold, value in (("fold1", 4.0), ("fold2", 8.0)):
            for number in range(2):
                (tmp_path / fold / "train").mkdir(parents=True, exist_ok=True)
                pair = np.full((2, 12, 12, 8 + number), value, np.float32)
                pair[0, ::2] *= 1.1
                np.savez(tmp_path / fold / "train" / f"{fold}-{number}.npz", pair)
        shutil.copytree(tmp_path / "fold1", tmp_path / "moved")
        with caplog.at_level("INFO", "guided_diffusion"):
            run(tmp_path / "fold1" / "train", tmp_path / "run", max_steps=1)
            run(tmp_path / "moved" / "train", tmp_path / "run", max_steps=2)
            assert not any("pairs differ" in notice for notice in notices(caplog))
            run(tmp_path / "fold2" / "train", tmp_path / "run", max_steps=3)
            (tmp_path / "fold1" / "train" / "fold1-1.npz").unlink()
            run(tmp_path / "fold1" / "train", tmp_path / "run", max_steps=4)
        told = [notice for notice in notices(caplog) if "pairs differ" in notice]
        assert [notice.rpartition(" ")[2] for notice in told] == [f"{tmp_path}/fold{n}/train" for n in (2, 1)]
        first, *changes = history(tmp_path / "run" / "model000004.pt")
        digests = [entry["flags"]["pairs_sha256"] for entry in (first, *changes)]
        assert [entry["from_step"] for entry in changes] == [3, 4]
        assert len(set(digests)) == 3
        assert str(tmp_path) not in str((first, changes))

    def test_of_a_version_that_did_not_record_pairs_goes_on_silently(self, begun, data_dir, caplog):
        old = load_checkpoint(str(begun / "model000002.pt"))
        del old.header.training["history"][0]["flags"]["pairs_sha256"]
        save_checkpoint(begun / "model000002.pt", old.state_dict, old.header)
        (begun / "digests000002.json").unlink()
        with caplog.at_level("INFO", "guided_diffusion"):
            run(data_dir, begun, max_steps=3, lr_anneal_steps=10)
        assert notices(caplog) == []
        _first, entry = history(begun / "model000003.pt")
        assert list(entry["flags"]) == ["pairs_sha256"]

    def test_compares_with_what_is_in_force(self):
        recorded = [{"from_step": 1, "flags": {"lr": 1.0, "seed": 0}}, {"from_step": 5, "flags": {"lr": 0.5}}]
        assert extended(recorded, {"lr": 0.5, "seed": 0}, 9) == recorded
        back = [*recorded, {"from_step": 9, "flags": {"lr": 1.0}}]
        assert extended(recorded, {"lr": 1.0, "seed": 0}, 9) == back
        assert extended([], {"lr": 1.0}, 9) == [{"from_step": 9, "flags": {"lr": 1.0}}]


class TestChangedFlagsAct:
    def test_weight_decay(self, begun, data_dir):
        before = weights(begun / "model000002.pt")
        start = {"resume_checkpoint": str(begun / "model000002.pt"), "lr_anneal_steps": 10, "max_steps": 3}
        after = []
        for decay in (0.0, 0.5):
            run(data_dir, begun, weight_decay=decay, **start)
            after.append(weights(begun / "model000003.pt"))
        for name, value in before.items():
            torch.testing.assert_close(after[1][name], after[0][name] - 8e-4 * 0.5 * value, rtol=0, atol=1e-6)

    def test_schedule_sampler(self, data_dir, tmp_path):
        learning = {"schedule_sampler": "loss-second-moment"}
        run(data_dir, tmp_path, max_steps=1, **TWO_STEPS)
        run(data_dir, tmp_path, max_steps=2, **TWO_STEPS | learning)
        assert int(read_plain(str(tmp_path / "opt000002.pt"))["schedule_sampler"]["seen"].sum()) == 2
        run(data_dir, tmp_path, max_steps=3, **TWO_STEPS)
        assert read_plain(str(tmp_path / "opt000003.pt"))["schedule_sampler"] == {}

    def test_float16_after_float32(self):
        settings = training_settings(TINY | {"data_dir": "unused"})
        steps = []
        for model in (settings.model, replace(settings.model, use_fp16=True)):
            torch.manual_seed(0)
            steps.append(TrainStep(replace(settings, model=model), create_model(settings.model, settings.diffusion)))
        steps[1].load_state_dict(steps[0].state_dict())
        assert steps[1].networks[0].scaler.get_scale() == 2.0**20


class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "complaint"),
        [
            ({"method": "unet3d"}, "trained as ddpm3d, but --method is unet3d"),
            ({"channel_mult": "1,2"}, "trained with channel_mult '1,1', but the flags say '1,2'"),
            ({"noise_schedule": "cosine"}, "trained with noise_schedule 'linear', but the flags say 'cosine'"),
            ({"timestep_respacing": "10"}, "trained with timestep_respacing '', but the flags say '10'"),
        ],
    )
    def test_another_method_network_or_process(self, begun, data_dir, flags, complaint):
        with pytest.raises(InputError) as refused:
            run(data_dir, begun, max_steps=3, **flags)
        message = str(refused.value)
        assert message.startswith(f"{begun / 'model000002.pt'}: ")
        assert complaint in message
        assert "\n" not in message
        assert not (begun / "model000003.pt").exists()

    def test_other_timesteps_for_weights_that_begin_a_run(self, begun, data_dir, tmp_path):
        start = {"resume_checkpoint": str(begun / "ema_0.9_000002.pt"), "timestep_respacing": "10"}
        run(data_dir, tmp_path / "other", max_steps=1, **start)
        header = load_checkpoint(str(tmp_path / "other" / "model000001.pt")).header
        assert header.diffusion.timestep_respacing == "10"

    def test_other_patches_are_nothing_to_training(self, begun, data_dir):
        """What is recommended to inference may have changed since the weights were made."""
        path = begun / "model000002.pt"
        saved = load_checkpoint(str(path))
        shorter = replace(saved.header, preprocessing=replace(saved.header.preprocessing, patch_size=32, overlap=4))
        save_checkpoint(path, saved.state_dict, shorter)
        (begun / "digests000002.json").unlink()
        run(data_dir, begun, max_steps=3, lr_anneal_steps=10)
        assert load_checkpoint(str(begun / "model000003.pt")).header.preprocessing.patch_size == 96
