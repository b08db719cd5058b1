"""Which ranks share a device, and that all have one of a kind."""

from types import SimpleNamespace

import pytest
import torch

from guided_diffusion import dist_util


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
