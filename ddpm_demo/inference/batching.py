"""Continuous batching: the steps of many runs share one forward pass.

One pass of 16 pictures costs far less than 16 passes of one. Each picture has its own t, so runs
with different timesteps and samplers can share a batch. Each run has its own thread and needs no
change. Where a `Denoiser` would call the network, a `BatchedDenoiser` hands the call to a `Batcher`
and waits for the answer.

One thread runs all passes of a process, one after the other. On a CPU, two networks at once would
slow each other down, and each thread that has run a network keeps the memory of its activations.

After a batch, the thread waits a moment for the runs of that batch to come back. If other runs fill
the next batch sooner, it stops waiting. The next batch then takes the calls that have arrived. A
run that is alone waits for nobody, and its calls are never split. Otherwise

- visitors take turns: whoever had the last turn comes last, and newcomers come first;
- a call takes its share of the batch. Room that it doesn't need goes to calls that want more. A
  call that got less than its share keeps its turn;
- calls that can't share a batch, such as those of another network, take turns by the same rule.

A picture comes out the same as in a run alone, up to rounding, because kernels may add numbers in
another order for batches of another size. In float32, the difference at the end of a run is below
1e-4, or 1e-3 if x0_hat is not clipped. In bfloat16, there is no difference if the kernels don't
depend on the batch, as on CPUs with AMX; otherwise the second digit of a pixel may differ.
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
from ddpm_demo.diffusion import Denoiser
from ddpm_demo.machine.devices import claim_cores
from ddpm_demo.nn.unet import UNet

MOST = 64  # the most pictures in a batch that several runs share
FIRST = 4  # the same limit, before any batch was timed
WORTH = 0.98  # a larger batch must cut the time of a picture to at most this share
TRY = 8  # every 8th batch may be twice as large, to learn if that is faster
LINGER = 0.1  # wait this share of the last batch's time for its runs to come back
IDLE = 10.0  # an idle batcher's thread ends after this many seconds


class Pace:
    """Learns from the time of each batch how many pictures to run together.

    Sizes are grouped by powers of two. For each group it keeps the shortest time, because other
    work on the machine can only make a batch slower. It ignores the first batch of each size, since
    kernels are prepared in it.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}  # by k: for each picture of 2**k to 2**(k+1) - 1
        self._sizes: set[int] = set()
        self._batches = 0

    def note(self, size: int, seconds: float) -> None:
        """Learn that a batch of `size` pictures took `seconds`."""
        k, each = size.bit_length() - 1, seconds / size
        if size in self._sizes:
            self._seconds[k] = min(each, self._seconds.get(k, each))
        self._sizes.add(size)
        self._batches += 1

    def limit(self) -> int:
        """The smallest size that is about as fast as any, or twice that if it's time to try."""
        if not self._seconds:
            return FIRST
        enough = min(self._seconds.values()) / WORTH
        k = min(k for k, seconds in self._seconds.items() if seconds <= enough)
        return 2 ** (k + (k + 1 not in self._seconds or self._batches % TRY == 0))


class Visitor:
    """A run that uses the batcher."""

    turn = -1  # the number of its last turn; -1 before its first


class _Call:
    """A visitor's call of a network on some pictures. `left` of them are still to be run."""

    def __init__(self, visitor: Visitor, model: UNet, x: Tensor, t: Tensor, y: Tensor | None):
        device = x.device
        on = torch.is_autocast_enabled(device.type)
        self.autocast = torch.get_autocast_dtype(device.type) if on else None
        self.visitor, self.model, self.device = visitor, model, device
        self.size = self.left = len(x)
        # Calls of the same kind are equally fast; calls with the same key may share a batch.
        self.kind = (model.config, x.shape[1:], x.dtype, device, self.autocast)
        self.batch_key = (id(model), y is None, *self.kind)
        self.answer: Future[Tensor] = Future()
        self._inputs = (x, t) if y is None else (x, t, y)
        self._parts: list[Tensor] = []

    def inputs(self, n: int) -> tuple[Tensor, ...]:
        """The inputs of the next n pictures."""
        start = len(self._inputs[0]) - self.left
        return tuple(i[start : start + n] for i in self._inputs)

    def receive(self, part: Tensor) -> None:
        """Take the network's output for the next pictures."""
        self._parts.append(part)
        self.left -= len(part)
        if not self.left:
            with suppress(InvalidStateError):  # nobody is waiting any more
                self.answer.set_result(part if len(self._parts) == 1 else torch.cat(self._parts))

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.answer.set_exception(error)


class Batcher:
    """Runs networks for many threads. A process needs one.

    Args:
        most: the most pictures in a shared batch. The batcher learns which size up to this is best.
        cores: how many cores networks run on; later threads get one core each (see
            `devices.claim_cores`). None changes nothing.
    """

    def __init__(self, most: int = MOST, cores: int | None = None) -> None:
        self.most, self.cores = most, cores
        self._changed = threading.Condition()  # guards the next three; the rest is the thread's
        self._waiting: list[_Call] = []
        self._thread: threading.Thread | None = None  # None while there is no work
        self._ending = False
        atexit.register(self._end)
        self._turn = 0
        self._last: set[Visitor] = set()  # the visitors of the last batch
        self._took = 0.0  # seconds that the last batch took
        self._paces: dict[Hashable, Pace] = defaultdict(Pace)

    def run(
        self, visitor: Visitor, model: UNet, x: Tensor, t: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """Return `model(x, t, y)`, without gradients, under the caller's autocast.

        Raises:
            Exception: whatever the model raises when it gets these inputs alone.
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
            call.answer.cancel()  # if the wait was interrupted, nobody needs the answer

    @property
    def busy(self) -> bool:
        """True if somebody waits for pictures, or got some from the last batch."""
        with self._changed:
            return bool(self._waiting or self._last)

    def _work(self) -> None:
        """Run batch after batch until there are no more. The thread does this."""
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
        """End the thread before the program ends. During Python's shutdown it couldn't end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
            thread = self._thread
        if thread:
            thread.join()

    def _next(self) -> dict[_Call, int]:
        """Wait for the next batch: its calls, and how many pictures of each. Empty: end."""
        with self._changed:
            # The runs of the last batch will soon ask for their next step. Without this wait, the
            # first of them would run alone, and the others after it: two batches for each step.
            # If other runs fill a batch in the meantime, they go first.
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
        """The calls that may share the next batch, its room, and True if they fill it."""
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
        """Run a batch and give each call its pictures. If that fails, run each call by itself."""
        first, *others = batch
        parts = [call.inputs(n) for call, n in batch.items()]
        inputs = [torch.cat(i) for i in zip(*parts, strict=True)] if others else parts[0]
        device, autocast = first.device, first.autocast
        # On a CPU, measure the thread's own time: other work on the machine doesn't count.
        clock = time.thread_time if device.type == "cpu" else time.perf_counter
        start = clock()
        try:
            with torch.no_grad(), torch.autocast(device.type, autocast, autocast is not None):
                raw = first.model(*inputs)
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
        except BaseException as error:  # while it lives, so does the memory of the whole batch
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
    """How many pictures of each call go into a batch of `room`, and how many are a fair share.

    A fair share is an equal part of the room. It is more if the smallest call, or the smallest rest
    of a call, needs more: it is better to finish some steps than to do a little of each. In the
    order of `calls`, each takes its fair share; then the room that is left goes to those that want
    more.
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
    """A `Denoiser` that shares its forward passes with other runs. Each run has its own.

    Args:
        batcher: all runs of the process share it.
        options: the options of `Denoiser`.
    """

    def __init__(
        self, batcher: Batcher, model: UNet, config: DiffusionConfig, **options: Any
    ) -> None:
        super().__init__(model, config, **options)
        self._batcher, self._visitor = batcher, Visitor()

    def _network(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        classes = self.model.config.num_classes
        if classes and y is None:  # with labels, it can share a batch with runs that have a class
            y = torch.full_like(t, classes)
        return self._batcher.run(self._visitor, self.model, x, t, y if classes else None)
