"""Passes side by side: the same results in the same order, and threads as they were."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from litee.finetune.parallel import passes_at_once, side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    """Sets torch's threads, and sets them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_results_come_in_order_whatever_ends_first(threads):
    threads(3)

    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0.0)
        return item * item

    assert list(side_by_side(slow_first, range(7), device=CPU)) == [k * k for k in range(7)]


def test_calls_run_at_once_on_threads_of_their_own(threads):
    threads(2)
    both = threading.Barrier(2, timeout=20)  # neither passes it alone
    found = list(
        side_by_side(lambda _: (both.wait(), torch.get_num_threads())[1], [0, 1], device=CPU)
    )
    assert found == [1, 1]
    assert torch.get_num_threads() == 2


def test_one_thread_runs_in_the_caller(threads):
    threads(1)
    assert passes_at_once() == 1
    names = list(side_by_side(lambda _: threading.current_thread().name, [0, 1], device=CPU))
    assert set(names) == {threading.current_thread().name}


def test_a_gpu_runs_one_after_the_other(threads):
    threads(2)
    names = list(
        side_by_side(lambda _: threading.current_thread().name, [0], device=torch.device("cuda"))
    )
    assert names == [threading.current_thread().name]


def test_an_error_and_an_early_stop_set_the_threads_back(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda x: 1 // x, [1, 0], device=CPU))
    assert torch.get_num_threads() == 2
    begun = []

    def slow(item: int) -> int:
        begun.append(item)
        time.sleep(0.02)
        return item

    running = side_by_side(slow, range(50), device=CPU)
    assert next(running) == 0
    running.close()
    assert torch.get_num_threads() == 2
    assert len(begun) < 10
