"""What training leaves behind: headers, the best average, validation."""

import errno
import io
import os
from contextlib import contextmanager

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from guided_diffusion.checkpoints import load_checkpoint, read_plain
from guided_diffusion.config import DiffusionConfig, ModelConfig, PreprocessingConfig
from guided_diffusion.errors import InputError
from guided_diffusion.files import sha256_of
from guided_diffusion.image_datasets import CropSource, find_pairs
from guided_diffusion.training import run_files
from guided_diffusion.training.run_files import ProgressTable, find_start
from tests.training_runs import TINY, assert_same_weights, rows, run


class TestFiles:
    def test_header_describes_the_weights(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=2, seed=5)
        header = load_checkpoint(str(tmp_path / "ema_0.99_000002.pt")).header
        assert header.method == "ddpm3d"
        assert header.model == ModelConfig(**{k: v for k, v in TINY.items() if k in vars(ModelConfig())})
        assert header.diffusion == DiffusionConfig(predict_xstart=True)
        assert header.preprocessing.voxel_mm == (3.3, 3.3, 3.3)
        assert header.preprocessing.suv_max == 16.0
        assert header.training["step"] == 2
        assert header.training["seed"] == 5
        assert header.training["ema_rate"] == "0.99"
        assert header.training["data"] == {"pairs": 2, "subjects": 2, "doses": {"0.05": 2}}
        assert "--seed 5" in header.training["command"]
        assert str(tmp_path.parent) not in str(header)
        assert str(data_dir.parent) not in str(header)

    def test_a_remote_start_is_refused(self, tmp_path):
        """As a local path it would lose a slash, and then not be found."""
        with pytest.raises(InputError, match=r"--resume_checkpoint gs://bucket/model000100\.pt: .*copy it here"):
            find_start(tmp_path, "gs://bucket/model000100.pt", ())

    def test_a_set_without_the_average_of_a_rate_names_those_that_it_has(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "run", max_steps=1, ema_rate="0.9,0.99")
        with pytest.raises(InputError, match=r"ema_0\.5_000001\.pt: no such checkpoint; .*--ema_rate 0\.9,0\.99"):
            find_start(tmp_path, str(tmp_path / "run" / "model000001.pt"), ("0.9", "0.5"))

    def test_a_run_with_averages_of_other_rates_is_refused_in_one_line(self, data_dir, tmp_path, caplog):
        run(data_dir, tmp_path / "run", max_steps=2, save_interval=1, ema_rate="0.9")
        with caplog.at_level("INFO"), pytest.raises(InputError, match=r"the run has --ema_rate 0\.9: give that"):
            find_start(tmp_path / "run", "", ("0.99",))
        assert not [record for record in caplog.records if "notice" in record.message]

    def test_a_rate_is_the_same_however_it_is_written(self, data_dir, tmp_path):
        run(data_dir, tmp_path / "run", max_steps=1, ema_rate="0.9")
        start = find_start(tmp_path / "run", "", ("0.90",))
        assert start.averages["0.90"].sha256 == sha256_of(tmp_path / "run" / "ema_0.9_000001.pt")

    def test_best_average_is_kept(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=6, validation_interval=2, validation_crops=2, save_interval=2, lr=0.03)
        scores = {int(row["step"]): float(row["psnr_denoised"]) for row in rows(tmp_path / "validation.csv")}
        assert sorted(scores) == [2, 4, 6]
        best = max(scores, key=scores.get)
        assert_same_weights(tmp_path / "ema_0.9_best.pt", tmp_path / f"ema_0.9_{best:06d}.pt")
        header = load_checkpoint(str(tmp_path / "ema_0.9_best.pt")).header
        assert header.training["validation_psnr"] == pytest.approx(scores[best], abs=1e-3)

    def test_other_validation_crops_begin_anew(self, data_dir, tmp_path, caplog):
        caplog.set_level("INFO", "guided_diffusion")
        flags = {"validation_interval": 1, "lr": 1e-9}
        notice = "notice: other validation crops than before"
        run(data_dir, tmp_path, max_steps=1, validation_crops=3, **flags)
        state = read_plain(str(tmp_path / "opt000001.pt"))
        run(data_dir, tmp_path, max_steps=2, validation_crops=3, **flags)
        assert notice not in caplog.text
        run(data_dir, tmp_path, max_steps=3, validation_crops=1, **flags)
        assert notice in caplog.text
        first, _, third = (float(row["psnr_denoised"]) for row in rows(tmp_path / "validation.csv"))
        assert state["best"] == pytest.approx(first, abs=1e-3)
        assert read_plain(str(tmp_path / "opt000003.pt"))["best"] == pytest.approx(third, abs=1e-3)
        assert load_checkpoint(str(tmp_path / "ema_0.9_best.pt")).header.training["step"] == 3

    def test_validation_of_the_low_dose_is_plain_psnr_and_ssim(self, data_dir, tmp_path):
        run(data_dir, tmp_path, max_steps=1, validation_interval=1, validation_crops=3)
        source = CropSource(find_pairs(data_dir, "validation", (3.3,) * 3), (8, 8, 4), PreprocessingConfig(), seed=0)
        crops = [source.crop(0, item) for item in range(3)]
        errors = [np.mean((16.0 * (crop.low_dose - crop.normal_dose)) ** 2) for crop in crops]
        expected = np.mean(10 * np.log10(16.0**2 / np.array(errors)))  # not of the mean error: it is the lowest dose's
        (score,) = rows(tmp_path / "validation.csv")
        assert float(score["psnr_low_dose"]) == pytest.approx(expected, abs=1e-3)
        similar = [  # crops of four slices have room for a window of three
            structural_similarity(16 * crop.normal_dose[0], 16 * crop.low_dose[0], win_size=3, data_range=16.0)
            for crop in crops
        ]
        assert float(score["ssim_low_dose"]) == pytest.approx(np.mean(similar), abs=1e-5)
        for name in ("curves.png", "validation_slice.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")

    def test_a_folder_is_a_validation_set_of_its_own(self, data_dir, tmp_path):
        np.savez(tmp_path / "pair.npz", arr_0=np.load(data_dir / "validation.npz")["arr_0"])
        for name, flags in (("manifest", {}), ("folder", {"validation_dir": str(tmp_path)})):
            run(data_dir, tmp_path / name, max_steps=1, validation_interval=1, **flags)
        one, other = (rows(tmp_path / name / "validation.csv")[0] for name in ("manifest", "folder"))
        assert one["psnr_denoised"] == other["psnr_denoised"]


def test_a_pipe_in_the_place_of_a_table_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "progress.csv")
    with pytest.raises(InputError, match=r"progress\.csv: .*is a named pipe"):
        ProgressTable(tmp_path / "progress.csv", ("step", "loss"), 0)


class TestFullDisk:
    """A disk that fills up between two saves: what was learned since the last one must not be lost."""

    def test_rows_that_do_not_fit_are_left_out_whole_with_one_notice(self, tmp_path, caplog):
        table = ProgressTable(tmp_path / "progress.csv", ("step", "loss"), 0)
        table.add({"step": 1, "loss": 0.5})
        before = (tmp_path / "progress.csv").read_bytes()
        for count in (3, 0):
            with caplog.at_level("INFO", "guided_diffusion"), room_for(count):
                table.add({"step": 2, "loss": 0.25})
            assert (tmp_path / "progress.csv").read_bytes() == before
        (notice,) = [record.message for record in caplog.records]
        assert notice.startswith(f"notice: {tmp_path}/progress.csv: No space left on device; rows are left out")
        table.add({"step": 4, "loss": 0.0625})
        assert table.read() == [{"step": "1", "loss": "0.5"}, {"step": "4", "loss": "0.0625"}]

    def test_training_goes_on_to_its_next_save(self, data_dir, tmp_path, monkeypatch, caplog):
        flags = {"max_steps": 4, "validation_interval": 2, "validation_crops": 1, "save_interval": 4}
        run(data_dir, tmp_path / "roomy", **flags)

        def full(*_anything):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("guided_diffusion.training.run_files._append", full)
        monkeypatch.setattr("guided_diffusion.training.run_pictures.Figure.savefig", lambda *_, **__: full())
        with caplog.at_level("INFO", "guided_diffusion"):
            run(data_dir, tmp_path / "full", **flags)
        assert_same_weights(tmp_path / "full" / "model000004.pt", tmp_path / "roomy" / "model000004.pt")
        assert rows(tmp_path / "full" / "progress.csv") == []
        assert not (tmp_path / "full" / "ema_0.9_best.pt").exists()
        notices = [record.message for record in caplog.records if record.message.startswith("notice")]
        assert [notice.split(":")[1].rpartition("/")[2] for notice in notices[:2]] == ["progress.csv", "validation.csv"]
        assert len(notices) == 4  # and one per validation, about its pictures
        assert "training goes on to its next save, although: cannot write" in notices[-1]


@contextmanager
def room_for(count):
    """Within the block, the tables of a run take so many bytes more, as on a disk that is full then."""

    class Nearly(io.FileIO):
        def write(self, content):
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content[:count])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_files, "open", lambda path, *_, **__: Nearly(path, "a"), raising=False)
        yield
