"""Continuous batching: the steps of many runs share one forward pass.

A pass of 16 pictures costs far less than 16 passes of one, and t is per picture, so runs at
different timesteps, with different samplers, can share a batch. Each run stays as it is, in its own
thread: where a `Denoiser` would call the network, a `BatchedDenoiser` hands the call to a `Batcher`
and waits for the answer.

All passes of a process are run by one thread, one after the other: on a CPU two networks at once
slow each other down, and every thread that has run one keeps the memory of its activations.

A batch starts when the last one is done and those who were in it have had a moment to come back, or
others fill it, with the calls that have come by then. A run that is alone waits for nobody, and its
calls are never split. Otherwise

- visitors take turns: who had the last turn comes last, and a newcomer before all others;
- a call takes its share of the batch, and what it leaves free goes to those that want more. A call
  that found less room than its share has not had its turn;
- calls that can't share a batch, such as those of another network, take turns by the same rule.

A picture is the one that it is alone, up to rounding: for batches of other sizes, kernels may add
in another order. In float32 that is less than 1e-4 at the end of a run, or 1e-3 where x0_hat is not
clipped. In bfloat16 nothing changes where kernels don't depend on the batch, as on CPUs with AMX;
elsewhere the second digit of a pixel may.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import defaultdict
from collections.abc import Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ddpm_demo.config import DiffusionConfig
from ddpm_demo.devices import claim_cores
from ddpm_demo.diffusion.denoiser import Denoiser
from ddpm_demo.nn.unet import UNet

MOST = 64  # pictures in a batch that several runs share
FIRST = 4  # the same, while nothing is known
WORTH = 0.98  # a batch twice the size is worth it where a picture takes this part of the time
TRY = 8  # every so many batches, one of twice the size is tried
LINGER = 0.1  # how long to wait for those of the last batch, as a part of what that took
IDLE = 10.0  # seconds after which the thread of an idle batcher ends


class Pace:
    """Learns from the batches themselves how many pictures are worth running together.

    Sizes count by their powers of two. Of each the least time is kept, as whatever else the machine
    does can only make a batch slower, and the first batch of a size, for which kernels are made, is
    left out.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # a picture, in batches of size 2**k to 2**(k+1) - 1
        self._sizes: set[int] = set()
        self._batches = 0

    def note(self, size: int, seconds: float) -> None:
        """A batch of `size` pictures took `seconds`."""
        k, each = size.bit_length() - 1, seconds / size
        if size in self._sizes:
            self._seconds[k] = min(each, self._seconds.get(k, each))
        self._sizes.add(size)
        self._batches += 1

    def limit(self) -> int:
        """The smallest size that is about as good as any; twice that if it's time to try."""
        if not self._seconds:
            return FIRST
        enough = min(self._seconds.values()) / WORTH
        k = min(k for k, seconds in self._seconds.items() if seconds <= enough)
        return 2 ** (k + (k + 1 not in self._seconds or self._batches % TRY == 0))


class Visitor:
    """A run, as the batcher sees it."""

    turn = -1  # the number of its last turn


class _Call:
    """A visitor's call of a network on some pictures, of which `left` have not been run."""

    def __init__(self, visitor: Visitor, model: UNet, x: Tensor, t: Tensor, y: Tensor | None):
        device = x.device
        on = torch.is_autocast_enabled(device.type)
        self.autocast = torch.get_autocast_dtype(device.type) if on else None
        self.visitor, self.model, self.device = visitor, model, device
        self.size = self.left = len(x)
        self.kind = (model.config, x.shape[1:], x.dtype, device, self.autocast)  # equally fast
        self.batch_key = (id(model), y is None, *self.kind)  # may share a batch
        self.answer: Future[Tensor] = Future()
        self._inputs = (x, t) if y is None else (x, t, y)
        self._parts: list[Tensor] = []

    def inputs(self, n: int) -> tuple[Tensor, ...]:
        """The inputs of the next n pictures."""
        start = len(self._inputs[0]) - self.left
        return tuple(i[start : start + n] for i in self._inputs)

    def receive(self, part: Tensor) -> None:
        """The network's answer for the next pictures."""
        self._parts.append(part)
        self.left -= len(part)
        if not self.left:
            with suppress(InvalidStateError):  # nobody is waiting any more
                self.answer.set_result(part if len(self._parts) == 1 else torch.cat(self._parts))

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.answer.set_exception(error)


class Batcher:
    """Runs networks for many threads. One for a process.

    Args:
        most: pictures in a shared batch, at most; how many up to that is learned.
        cores: that networks run on, while threads that start later have one each (see
            `devices.claim_cores`); None leaves this as it is.
    """

    def __init__(self, most: int = MOST, cores: int | None = None) -> None:
        self.most, self.cores = most, cores
        self._changed = threading.Condition()  # guards the next three; the rest is the thread's own
        self._waiting: list[_Call] = []
        self._thread: threading.Thread | None = None  # while it works
        self._ending = False
        atexit.register(self._end)
        self._turn = 0
        self._last: set[Visitor] = set()  # whom the last batch was for,
        self._took = 0.0  # and its seconds
        self._paces: dict[Hashable, Pace] = defaultdict(Pace)

    def run(
        self, visitor: Visitor, model: UNet, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """`model(x, t, y)` without gradients, under the caller's autocast.

        Raises:
            Exception: what the model raises for these inputs alone.
        """
        call = _Call(visitor, model, x, t, y)
        try:
            with self._changed:
                self._waiting.append(call)
                if not self._thread:
                    self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
                    self._thread.start()
                self._changed.notify()
            return call.answer.result()
        finally:
            call.answer.cancel()  # dropped, if the wait was interrupted

    @property
    def busy(self) -> bool:
        """Whether somebody waits for pictures, or was given some by the last batch."""
        with self._changed:
            return bool(self._waiting or self._last)

    def _work(self) -> None:
        """What the thread does: batch after batch, until there are no more."""
        try:
            if self.cores:
                claim_cores(self.cores)
            while batch := self._next():
                self._last = {call.visitor for call in batch}
                start = time.perf_counter()
                self._forward(batch)
                self._took = time.perf_counter() - start
        except BaseException as error:
            with self._changed:
                self._thread = None
                for call in self._waiting:
                    call.fail(error)
            raise

    def _end(self) -> None:
        """When the program ends: so does the thread, which couldn't once Python is being undone."""
        with self._changed:
            self._ending = True
            self._changed.notify()
            thread = self._thread
        if thread:
            thread.join()

    def _next(self) -> dict[_Call, int]:
        """The next batch, once there is one: calls, and the number of pictures of each."""
        with self._changed:
            # The runs of the last batch are about to ask for their next step. If nobody waited, the
            # first to come back would be run alone, and the others after it: two batches a step.
            # If other runs fill a batch by then, they take turns.
            self._changed.wait_for(
                lambda: self._ending or self._back() or self._plan()[2], LINGER * self._took
            )
            calls, room, _ = self._plan()
            if not calls:
                self._last = set()
                self._changed.wait_for(lambda: self._ending or self._plan()[0], IDLE)
                calls, room, _ = self._plan()
            if self._ending or not calls:
                self._thread = None
                return {}
            batch, fair = share(calls, room)
            for call, n in batch.items():
                if n >= min(call.left, fair):
                    self._turn += 1
                    call.visitor.turn = self._turn
            return batch

    def _plan(self) -> tuple[list[_Call], int, bool]:
        """The calls that may share the next batch, its room, and whether they fill it."""
        self._waiting = [call for call in self._waiting if not call.answer.done()]
        if not self._waiting:
            return [], 0, False
        calls = sorted(self._waiting, key=lambda call: (call.visitor.turn, call.left))
        alone = len({call.visitor for call in calls} | self._last) == 1
        calls = [call for call in calls if call.batch_key == calls[0].batch_key]
        room = min(self.most, self._paces[calls[0].kind].limit())
        if alone:
            room = calls[0].left
        fills = not alone and sum(call.left for call in calls) >= room
        return calls, room, fills

    def _back(self) -> bool:
        return self._last <= {c.visitor for c in self._waiting if not c.answer.done()}

    def _forward(self, batch: dict[_Call, int]) -> None:
        """Run a batch and hand out its pictures. If that fails, run each call by itself."""
        first, *others = batch
        parts = [call.inputs(n) for call, n in batch.items()]
        inputs = [torch.cat(i) for i in zip(*parts, strict=True)] if others else parts[0]
        device, autocast = first.device, first.autocast
        # On a CPU the thread's own time, which doesn't count what else the machine does.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        start = clock()
        try:
            with torch.no_grad(), torch.autocast(device.type, autocast, autocast is not None):
                raw = first.model(*inputs)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
        except BaseException as error:  # its traceback holds the memory of the whole batch
            if not others:
                first.fail(error)
                return
            raw = None
        if raw is None:
            for call, n in batch.items():
                self._forward({call: n})
            return
        self._paces[first.kind].note(len(raw), clock() - start)
        for call, part in zip(batch, raw.split(list(batch.values())), strict=True):
            call.receive(part)


def share(calls: list[_Call], room: int) -> tuple[dict[_Call, int], int]:
    """How many pictures of each call go into a batch of `room`, and what is a fair share of it.

    In the order of `calls`, each may take an equal share, or as many as the smallest call has, or
    has left, if that is more: rather some steps whole now than slivers of all. What is then left
    goes to those that want more.
    """
    smallest = min(call.size for call in calls), min(call.left for call in calls)
    fair = max(1, room // len(calls), *(n for n in smallest if n <= room))
    batch = dict.fromkeys(calls, 0)
    for most in (fair, room):
        for call in calls:
            n = min(call.left, most) - batch[call]
            n = min(n, room - sum(batch.values()))
            batch[call] += n
    return {call: n for call, n in batch.items() if n}, fair


class BatchedDenoiser(Denoiser):
    """A `Denoiser` whose forward passes join those of others. One for each run.

    Args:
        batcher: shared by all runs of the process.
        options: those of `Denoiser`.
    """

    def __init__(
        self, batcher: Batcher, model: UNet, config: DiffusionConfig, **options: Any
    ) -> None:
        super().__init__(model, config, **options)
        self._batcher, self._visitor = batcher, Visitor()

    def _network(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        classes = self.model.config.num_classes
        if classes and y is None:  # so that runs with and without a class can share a batch
            y = torch.full_like(t, classes)
        return self._batcher.run(self._visitor, self.model, x, t, y if classes else None)
