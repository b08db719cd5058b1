"""Which ranks share a device, and that all have one of a kind."""

from types import SimpleNamespace

import pytest
import torch

from guided_diffusion import dist_util
from guided_diffusion.inference import loading
from guided_diffusion.machine import gpus
from tests.mpi import ROOT


@pytest.mark.parametrize(
    ("gpus", "sharing"),
    [
        (["a", "b", "c", "d"], 1),  # a batch system shows each rank its own alone
        (["a", "b", "a", "b", "a"], 3),
        (["a", "", "", ""], 1),  # the other ranks have none
    ],
)
def test_ranks_share_a_gpu_where_it_is_the_same_one(gpus, sharing, monkeypatch):
    """Whichever number it has for each rank."""
    node = SimpleNamespace(rank=0, size=len(gpus), allgather=lambda own: [own, *gpus[1:]])
    monkeypatch.setattr(dist_util, "node_communicator", lambda: node)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _place: SimpleNamespace(uuid=gpus[0]))
    assert dist_util.ranks_per_device() == sharing


def test_ranks_without_a_gpu_share_their_node(monkeypatch):
    node = SimpleNamespace(rank=1, size=3, allgather=lambda own: [own] * 3)
    monkeypatch.setattr(dist_util, "node_communicator", lambda: node)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dist_util.ranks_per_device() == 3


@pytest.mark.parametrize("own", ["cpu", "cuda"])
def test_ranks_of_which_some_see_no_gpu_are_refused(own, monkeypatch):
    kinds = ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(dist_util, "raise_together", lambda _error: None)
    monkeypatch.setattr(dist_util, "unserved_gpu", lambda _place: None)
    monkeypatch.setattr(dist_util, "communicator", lambda: SimpleNamespace(allgather=lambda _own: kinds))
    monkeypatch.setattr(dist_util, "device", lambda: torch.device(own))
    with pytest.raises(dist_util.SharedError, match=r"rank 1 sees no GPU, but rank 0 does: .*CUDA_VISIBLE_DEVICES="):
        dist_util.device_of_all()
    kinds[:] = [own] * 3
    assert dist_util.device_of_all().type == own


@pytest.mark.parametrize("threads", [-1, 100_000])
def test_a_number_of_threads_that_no_machine_has_is_refused(threads):
    with pytest.raises(dist_util.SharedError, match=f"--threads {threads}: from 0 to 1024"):
        dist_util.share_cores(threads)


A_GPU = torch.device("cuda", 0)
OF_TODAY = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "codes", "served"),
    [
        ((7, 5), OF_TODAY, True),
        ((8, 0), OF_TODAY, True),
        ((8, 9), OF_TODAY, True),  # by the code for 8.6
        ((9, 0), OF_TODAY, True),
        ((10, 3), OF_TODAY, True),
        ((12, 1), OF_TODAY, True),  # by the intermediate code for 12.0
        ((7, 0), OF_TODAY, False),
        ((6, 1), OF_TODAY, False),
        ((11, 0), OF_TODAY, False),
    ],
)
def test_a_gpu_for_which_pytorch_has_no_code_is_refused(capability, codes, served, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _place: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: codes)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _place: "Some GPU")
    assert (gpus.unserved_gpu(A_GPU) is None) == served
    if not served:
        monkeypatch.setattr(dist_util, "device", lambda: A_GPU)
        words = f"Some GPU has compute capability {capability[0]}.{capability[1]}, .*sm_75.*CUDA_VISIBLE_DEVICES="
        with pytest.raises(dist_util.SharedError, match=words):
            dist_util.device_of_all()


def test_cpus_and_gpus_of_others_are_served(monkeypatch):
    assert gpus.unserved_gpu(torch.device("cpu")) is None
    monkeypatch.setattr(torch.version, "cuda", None)  # as in builds for AMD's GPUs, which are "cuda" as well
    assert gpus.unserved_gpu(A_GPU) is None


@pytest.mark.parametrize(
    ("nodes", "usable", "visible", "cuda", "why"),
    [
        (["nvidia0", "nvidiactl"], False, None, None, "is built without CUDA; the CPU is used"),
        (["nvidia0"], False, "0", "13.0", "finds none: its driver may be too old for CUDA 13.0"),
        (["nvidia0"], True, None, "13.0", None),
        (["nvidia0"], False, "", "13.0", None),
        (["nvidiactl", "nvidia-uvm"], False, None, None, None),
        ([], False, None, None, None),
    ],
)
def test_a_gpu_that_is_not_used_is_told(nodes, usable, visible, cuda, why, monkeypatch, tmp_path):
    for node in nodes:
        (tmp_path / node).touch()
    monkeypatch.setattr(gpus, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    notice = gpus.unused_gpu()
    assert notice is None if why is None else why in notice


def test_a_run_tells_of_a_gpu_that_is_not_used(monkeypatch):
    monkeypatch.setattr(loading, "unused_gpu", lambda: "why it is not used")
    assert "why it is not used" in loading.load_model(str(ROOT / "checkpoint" / "local3d.pt")).settings.notices
