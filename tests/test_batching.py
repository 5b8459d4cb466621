"""Many runs through one network: who shares a batch, who comes first, and what comes out."""

import random
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from ddpm_demo.config import DiffusionConfig, ModelConfig
from ddpm_demo.diffusion import Denoiser, Noise
from ddpm_demo.diffusion.samplers.ddim import ddim
from ddpm_demo.diffusion.samplers.ddpm import ddpm
from ddpm_demo.inference import batching
from ddpm_demo.inference.batching import BatchedDenoiser, Batcher, Pace, Visitor, _Call, share

PATIENCE = 30.0  # seconds until a test takes it for a deadlock
PROCESS = DiffusionConfig(T=50, schedule="cosine")


class Network:
    """x + t + y; notes whose pictures it gets: the first pixel of each says it.

    `gate.clear()` holds every pass until `gate.set()`; `entered` says that one is held. A class of
    13 makes it fail.
    """

    def __init__(self, classes=0, log=None):
        self.config = ModelConfig(num_classes=classes)
        self.batches = []
        self.log = self.batches if log is None else log
        self.gate, self.entered, self.running = threading.Event(), threading.Event(), 0
        self.gate.set()
        self.contexts = []

    def __call__(self, x, t, y=None):
        assert not self.running
        self.running += 1
        self.log.append(x[:, 0, 0, 0].int().tolist())
        autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        self.contexts.append((torch.is_grad_enabled(), autocast))
        if not self.gate.is_set():
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        self.running -= 1
        y = self.config.num_classes if y is None else y
        if bool(torch.as_tensor(y == 13).any()):
            raise IndexError("no class 13")
        return x + (t + y)[:, None, None, None]


def pictures(who, n=1, size=8):
    return torch.full((n, 1, size, size), float(who))


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def pending(batcher):
    """How many calls wait for their answer, the one that is being run included."""
    return sum(not call.answer.done() for call in list(batcher._waiting))


@pytest.fixture
def batcher(monkeypatch):
    """One that leaves no thread behind; `batcher.most` pictures are its limit from the start."""
    monkeypatch.setattr(batching, "IDLE", 0.2)
    monkeypatch.setattr(Pace, "limit", lambda _self: batching.MOST)
    before = set(threading.enumerate())
    yield Batcher()
    until(lambda: not {t for t in set(threading.enumerate()) - before if t.name == "batcher"})


@contextmanager
def held(batcher, network):
    """While the network is busy with a picture of visitor 0, `call(who, n)` queues more calls."""
    with ThreadPoolExecutor(32) as pool:
        network.entered.clear()
        network.gate.clear()

        def call(who, n=1, *, visitor=None, y=None, net=network, x=None):
            waiting = pending(batcher)
            x = pictures(who, n) if x is None else x
            t = torch.arange(len(x))
            future = pool.submit(batcher.run, visitor or Visitor(), net, x, t, y)
            until(lambda: pending(batcher) == waiting + 1)
            return future

        try:
            first = call(0)
            assert network.entered.wait(PATIENCE)
            yield call
        finally:
            network.gate.set()
        first.result(PATIENCE)


def sizes(batch):
    """How many pictures of each visitor are in a batch."""
    return {who: batch.count(who) for who in batch}


# --- who shares a batch ---------------------------------------------------------------------------


def test_calls_that_come_during_a_pass_share_the_next_one(batcher):
    network = Network()
    with held(batcher, network) as call:
        calls = [call(who, n) for who, n in enumerate((1, 2, 3, 4, 5), 1)]
    for who, future in enumerate(calls, 1):
        n = torch.arange(who).view(-1, 1, 1, 1)
        assert torch.equal(future.result(PATIENCE), pictures(who, who) + n)
    assert network.batches == [[0], [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5]]


def test_a_run_that_is_alone_is_neither_split_nor_copied(batcher):
    seen = []

    def look(x, t, y=None):
        seen.append((x.data_ptr(), len(x)))
        return x

    look.config = ModelConfig()
    x, visitor = pictures(1, 100), Visitor()
    for _ in range(3):
        assert torch.equal(batcher.run(visitor, look, x, torch.zeros(100)), x)
    assert seen == [(x.data_ptr(), 100)] * 3


def test_what_differs_in_shape_precision_or_network_is_not_mixed(batcher):
    network, log = Network(), []
    network.log = log
    other = Network(log=log)
    with held(batcher, network) as call:
        calls = [
            call(1, x=pictures(1, size=16)),
            call(2, x=pictures(2).double()),
            call(3, net=other),
            call(4),
            call(5, x=pictures(5, size=16)),
            call(6),
        ]
    assert [f.result(PATIENCE).dtype for f in calls].count(torch.float64) == 1
    assert [set(batch) for batch in log] == [{0}, {1, 5}, {2}, {3}, {4, 6}]


def test_autocast_and_gradients_are_those_of_the_caller_and_the_plain_denoiser(batcher):
    network = Network()
    x, t = pictures(1), torch.tensor([5])
    for bf16 in (False, True, False):
        BatchedDenoiser(batcher, network, PROCESS, bf16=bf16)(x, t)
        assert torch.is_grad_enabled()
    assert network.contexts == [(False, False), (False, torch.bfloat16), (False, False)]

    network.contexts.clear()
    with held(batcher, network), ThreadPoolExecutor(4) as pool:
        runs = [BatchedDenoiser(batcher, network, PROCESS, bf16=k > 1) for k in range(4)]
        futures = [pool.submit(run, x, t) for run in runs]
        until(lambda: pending(batcher) == 5)
        network.gate.set()
        for future in futures:
            future.result(PATIENCE)
    after = network.contexts[1:]
    assert set(after) == {(False, False), (False, torch.bfloat16)}
    assert len(set(after)) >= 2


def test_runs_with_and_without_a_class_share_a_batch(batcher):
    network = Network(classes=10)
    x, t = pictures(1, 2), torch.tensor([5, 9])
    labels = None, torch.tensor([3, 3])
    plain = [Denoiser(network, PROCESS, y=y)(x, t) for y in labels]
    network.batches.clear()
    with held(batcher, network), ThreadPoolExecutor(2) as pool:
        runs = [BatchedDenoiser(batcher, network, PROCESS, y=y) for y in labels]
        futures = [pool.submit(run, x, t) for run in runs]
        until(lambda: pending(batcher) == 3)
        network.gate.set()
        answers = [future.result(PATIENCE) for future in futures]
    assert len(network.batches) == 2
    assert all(map(torch.equal, answers[0], plain[0]))
    assert all(map(torch.equal, answers[1], plain[1]))


# --- fairness -------------------------------------------------------------------------------------


def test_many_pictures_of_one_do_not_hold_up_one_picture_of_each_other(batcher):
    network = Network()
    batcher.most = 16
    with held(batcher, network) as call:
        big = call(64, 64)
        small = [call(who) for who in range(1, 16)]
    assert torch.equal(big.result(PATIENCE), pictures(64, 64) + torch.arange(64).view(-1, 1, 1, 1))
    for future in small:
        future.result(PATIENCE)
    assert sizes(network.batches[1]) == dict.fromkeys([64, *range(1, 16)], 1)
    assert sum(map(len, network.batches[1:])) == 64 + 15


def test_two_that_ask_for_much_get_half_each(batcher):
    network = Network()
    batcher.most = 16
    with held(batcher, network) as call:
        both = [call(1, 64), call(2, 40)]
    for future in both:
        future.result(PATIENCE)
    assert [sizes(batch) for batch in network.batches[1:4]] == [{1: 8, 2: 8}] * 3
    assert [sizes(batch) for batch in network.batches[4:6]] == [{2: 16}, {1: 16}]


def test_a_newcomer_is_in_the_very_next_batch_while_eight_run(batcher):
    network = Network()
    batcher.most = 8
    stop = threading.Event()

    def visit(who):
        visitor = Visitor()
        while not stop.is_set():
            batcher.run(visitor, network, pictures(who, 4), torch.zeros(4))

    with ThreadPoolExecutor(9) as pool:
        runs = [pool.submit(visit, who) for who in range(1, 9)]
        try:
            until(lambda: {who for batch in network.batches for who in batch} == set(range(1, 9)))
            for _ in range(5):
                network.entered.clear()
                network.gate.clear()
                assert network.entered.wait(PATIENCE)
                until(lambda: pending(batcher) == 8)
                during = len(network.batches)
                newcomer = pool.submit(
                    batcher.run, Visitor(), network, pictures(99, 4), torch.zeros(4)
                )
                until(lambda: pending(batcher) > 8)
                network.gate.set()
                newcomer.result(PATIENCE)
                assert network.batches[during].count(99) == 4
        finally:
            stop.set()
            network.gate.set()
        for run in runs:
            run.result(PATIENCE)


def serve(batcher, wants, batches, network):
    """Visitors who always come back at once, without threads: one batch after the other.

    Args:
        wants: the pictures of each call, by visitor.

    Returns:
        For each visitor, when a call was done: the numbers of the batches.
    """
    visitors, done = {who: Visitor() for who in wants}, {who: [] for who in wants}
    calls = {}

    def ask(who):
        calls[who] = _Call(
            visitors[who], network, pictures(who, wants[who]), torch.zeros(wants[who]), None
        )
        batcher._waiting.append(calls[who])

    for who in wants:
        ask(who)
    for k in range(batches):
        batch = batcher._next()
        batcher._last = {call.visitor for call in batch}
        batcher._forward(batch)
        for who in wants:
            if calls[who].answer.done():
                done[who].append(k)
                ask(who)
    batcher._waiting.clear()
    return done


def test_a_full_batch_does_not_wait_for_those_of_the_last_one(batcher):
    network, batcher.most = Network(), 8
    batcher._last, batcher._took = {Visitor()}, 10.0  # who would be waited for, for a second
    network_call = (network, pictures(1, 4), torch.zeros(4), None)
    for waiting, patient in ((1, True), (2, False)):
        batcher._waiting = [_Call(Visitor(), *network_call) for _ in range(waiting)]
        start = time.perf_counter()
        assert sum(batcher._next().values()) == 4 * waiting
        assert (time.perf_counter() - start > 0.9) == patient


@pytest.mark.parametrize("most", [3, 4, 5, 8, 13, 16, 27, 64])
def test_eight_who_ask_for_as_much_get_as_much(batcher, most):
    network, batcher.most = Network(), most
    serve(batcher, dict.fromkeys(range(8), 4), 50, network)
    each = [sum(batch.count(who) for batch in network.batches) for who in range(8)]
    assert max(each) - min(each) <= 4  # one step


@pytest.mark.parametrize("most", [4, 8, 16])
def test_whoever_asks_for_much_gets_no_more_than_the_others(batcher, most):
    network, batcher.most = Network(), most
    done = serve(batcher, {0: 64} | dict.fromkeys(range(1, 8), 4), 64, network)
    each = [sum(batch.count(who) for batch in network.batches) for who in range(8)]
    assert max(each) - min(each) <= 4
    turns = 32 // most  # batches in which all are served a step of four
    for who in range(1, 8):
        gaps = [b - a for a, b in zip([-1, *done[who]], done[who], strict=False)]
        assert max(gaps) <= turns + 1


def test_nobody_waits_for_one_who_left_for_longer_than_a_moment(batcher, monkeypatch):
    """Who was in the last batch is waited for; a tenth of the time that it took."""
    waits = []
    monkeypatch.setattr(
        batcher._changed, "wait_for", lambda ready, timeout=None: waits.append(timeout) or ready()
    )
    network = Network()
    batcher._last, batcher._took = {Visitor()}, 2.0
    serve(batcher, {1: 4, 2: 4}, 1, network)
    assert waits == [pytest.approx(0.2)]
    assert network.batches == [[1, 1, 1, 1, 2, 2, 2, 2]]


def test_networks_take_turns(batcher):
    log = []
    a, b = Network(log=log), Network(log=log)
    batcher.most = 8
    with held(batcher, a) as call:
        calls = [call(1, 32), call(1, 32), call(2, 32, net=b), call(1, 32)]
    for future in calls:
        future.result(PATIENCE)
    turns = [batch[0] for batch in log[1:]]
    assert turns[:8] == [1, 2] * 4
    assert all(len(set(batch)) == 1 for batch in log)


# --- errors ---------------------------------------------------------------------------------------


def test_an_error_reaches_only_the_one_who_caused_it(batcher):
    network = Network(classes=20)
    with held(batcher, network) as call:
        good = [call(who, 2, y=torch.full((2,), who)) for who in (1, 2)]
        bad = call(13, 2, y=torch.full((2,), 13))
        good.append(call(3, 2, y=torch.full((2,), 3)))
    with pytest.raises(IndexError, match="no class 13"):
        bad.result(PATIENCE)
    steps = torch.arange(2).view(-1, 1, 1, 1)
    for who, future in enumerate(good, 1):
        assert torch.equal(future.result(PATIENCE), pictures(who, 2) + steps + who)


def test_a_picture_that_turns_nan_ends_only_its_own_run(batcher):
    network = Network()
    with held(batcher, network), ThreadPoolExecutor(2) as pool:
        runs = [BatchedDenoiser(batcher, network, PROCESS) for _ in range(2)]
        t = torch.tensor([5])
        well = pool.submit(runs[0], pictures(1), t)
        ill = pool.submit(runs[1], pictures(1) * float("nan"), t)
        until(lambda: pending(batcher) == 3)
        network.gate.set()
        with pytest.raises(FloatingPointError):
            ill.result(PATIENCE)
        assert well.result(PATIENCE).x0.isfinite().all()


def test_a_wait_that_is_interrupted_leaves_the_others_alone(batcher, monkeypatch):
    network = Network()

    def interrupted(self, timeout=None):
        raise KeyboardInterrupt

    with held(batcher, network) as call:
        with monkeypatch.context() as patch:
            patch.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                batcher.run(Visitor(), network, pictures(1), torch.zeros(1))
        call(2)
    assert network.batches == [[0], [2]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_a_thread_that_died(batcher, monkeypatch):
    network = Network()
    with held(batcher, network) as call:
        calls = [call(1), call(2)]
        monkeypatch.setattr(batching, "share", lambda calls, room: 1 // 0)
    for future in calls:
        with pytest.raises(ZeroDivisionError):
            future.result(PATIENCE)
    monkeypatch.setattr(batching, "share", share)
    assert torch.equal(batcher.run(Visitor(), network, pictures(3), torch.zeros(1)), pictures(3))


# --- all together ---------------------------------------------------------------------------------


def test_the_thread_ends_before_the_program_does():
    """While Python is undone, a thread that lets go of a tensor would abort the program."""
    program = """
import atexit, threading, torch
from ddpm_demo.inference.batching import Batcher, Visitor
from ddpm_demo.config import ModelConfig


# Runs after what is registered later.
atexit.register(lambda: print([t.name for t in threading.enumerate()]))

def network(x, t):
    return x + 1

network.config = ModelConfig()
batcher = Batcher()
x, t = torch.zeros(1, 1, 8, 8), torch.zeros(1)
for _ in range(3):
    assert batcher.run(Visitor(), network, x, t).sum() == 64
print(*[t.name for t in threading.enumerate()])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["MainThread batcher", "['MainThread']"], done


def test_sixteen_threads_of_random_calls_all_get_their_own(batcher):
    networks = [Network(classes=20), Network()]

    def visit(seed):
        rng, visitor, failed = random.Random(seed), Visitor(), 0
        network = rng.choice(networks)
        for _ in range(50):
            n = rng.choice((1, 1, 2, 4, 7, 33))
            size = rng.choice((8, 8, 8, 12))
            x = torch.rand(n, 1, size, size)
            t = torch.randint(0, 1000, (n,))
            y = None
            if network.config.num_classes:
                y = torch.randint(0, 14, (n,))
            answer = None
            try:
                answer = batcher.run(visitor, network, x, t, y)
            except IndexError:
                failed += 1
            right = x + (t if y is None else t + y).view(-1, 1, 1, 1)
            bad = y is not None and bool((y == 13).any())
            # A long call is split, and the first bad part ends it.
            assert (answer is None) == bad
            assert bad or torch.equal(answer, right)
        return failed

    with ThreadPoolExecutor(16) as pool:
        runs = [pool.submit(visit, seed) for seed in range(16)]
        assert sum(run.result(PATIENCE) for run in runs)
    assert not pending(batcher)


def test_runs_that_share_batches_give_the_pictures_of_runs_alone(batcher, tiny):
    model = tiny(num_classes=3).model

    def sample(denoiser, k):
        noise = Noise("gaussian", range(k, k + 1 + k % 4))
        x_T = noise.draw((len(noise), 1, 8, 8))
        method = ddpm if k % 2 else ddim
        steps = list(method(denoiser, x_T, denoiser.schedule.timesteps(5 + k), noise=noise))
        return steps[-1].x_t

    def options(k):
        n = 1 + k % 4
        y = torch.full((n,), k % 3) if k % 3 else None
        return {"y": y, "guidance": 1.0 + k % 2}

    alone = [sample(Denoiser(model, PROCESS, **options(k)), k) for k in range(8)]
    runs = [BatchedDenoiser(batcher, model, PROCESS, **options(k)) for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(sample, runs, range(8), timeout=PATIENCE))
    for a, b in zip(alone, together, strict=True):
        assert float((a - b).abs().max()) < 1e-3
    # Alone, the way through the batcher gives the same bits every time.
    again = [sample(BatchedDenoiser(batcher, model, PROCESS, **options(5)), 5) for _ in range(2)]
    assert torch.equal(*again)
    assert float((again[0] - alone[5]).abs().max()) < 1e-4


def test_whoever_is_alone_waits_for_nobody(batcher, monkeypatch):
    monkeypatch.setattr(batching, "LINGER", 1e9)  # a wait for others would not end
    network, visitor = Network(), Visitor()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            run = pool.submit(batcher.run, visitor, network, pictures(1, 4), torch.zeros(4))
            run.result(PATIENCE)
    with batcher._changed:  # so that its thread may end
        batcher._last = set()
        batcher._changed.notify()
    assert network.batches == [[1, 1, 1, 1]] * 3


# --- the size of a batch --------------------------------------------------------------------------


def learn(pace, each, batches=60):
    """Run full batches on a machine that takes `each(n)` seconds a picture."""
    limits = []
    for _ in range(batches):
        n = min(pace.limit(), 64)
        slow = 10 * (n not in limits)  # the first time
        limits.append(n)
        pace.note(n, n * (each(n) + slow))
    return limits


def test_batches_double_as_long_as_it_pays():
    limits = learn(Pace(), lambda n: 1 / min(n, 16))
    assert limits[:8] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert set(limits[8:]) == {16, 32}
    assert limits[8:].count(32) <= 7
    assert learn(Pace(), lambda n: 1 / n)[10:] == [64] * 50
    assert set(learn(Pace(), lambda n: 1)) == {4, 8}


def test_one_slow_batch_does_not_keep_batches_small():
    pace = Pace()
    for n in (4, 4, 8):
        pace.note(n, 1)
    pace.note(8, 1000)  # something else ran
    assert pace.limit() == 4
    assert learn(pace, lambda n: 1 / n)[-1] == 64
