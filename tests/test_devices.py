"""Cores and memory."""

import threading

import torch

from ddpm_demo.machine.devices import claim_cores, keep_memory


def test_one_thread_has_the_cores_and_later_ones_have_one() -> None:
    before, seen = torch.get_num_threads(), {}

    def owner() -> None:
        claim_cores(2)
        torch.ones(1_000_000).sum()
        seen["owner"] = torch.get_num_threads()
        later = threading.Thread(target=lambda: seen.update(later=torch.get_num_threads()))
        later.start()
        later.join()

    try:
        thread = threading.Thread(target=owner)
        thread.start()
        thread.join()
        assert seen == {"owner": 2, "later": 1}
    finally:
        torch.set_num_threads(before)


def test_results_stay_the_same_when_memory_is_kept() -> None:
    x = torch.arange(4_000_000.0)
    before = (x * 2).sum()
    keep_memory()
    assert (x * 2).sum() == before
