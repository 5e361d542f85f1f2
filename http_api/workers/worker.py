"""A process that makes answers for the server that started it: python -m http_api.workers.worker FD

It ends when its socket does, whatever it is doing, so that nothing is left of a server that was killed.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from http_api import answer, chunks, pictures
from http_api.workers import job
from http_api.workers.wire import HEAD, Kind, MappedFile, frame, pack, unpack
from tgres_py.errors import MemoryExceeded, TgresError
from tgres_py.functions.reads import Further
from tgres_py.functions.registry import functions
from tgres_py.machine import calm_allocator, trim_memory
from tgres_py.query.evaluate import ROUNDS_MAX, FurtherNeeded
from tgres_py.query.plan import Plan, PlannedCall, make_plan

NICENESS = 5
SLACK_BYTES = 32 << 20  # for what isn't counted: modules that are loaded late, messages
OOM_SCORE = 500  # when the system runs out of memory it takes a worker, not the server


class Order(NamedTuple):
    kind: Kind
    mapped: MappedFile
    data: job.Data


class Worker:
    """The work of one process. ``sock``: the server's other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.orders: SimpleQueue[Order] = SimpleQueue()

    def run(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        self.send(Kind.READY)
        while True:
            order = self.orders.get()
            try:
                self.work(order)
            except MemoryError:
                lift_limit()  # there must be some to tell it
                size = order.data["working_bytes"]
                self.tell(MemoryExceeded(size + 1, size))
            except TgresError as error:
                self.tell(error)
            except Exception:
                self.send(Kind.FAULT, pack(traceback.format_exc()))
            # the heap of one query isn't kept for the next one
            del order
            trim_memory()

    def _listen(self) -> None:
        """Takes orders as they come; the process ends with the server's."""
        try:
            self._take_orders()
        except Exception:
            traceback.print_exc()
        os._exit(1)

    def _take_orders(self) -> None:
        while True:
            head, fds, _, _ = socket.recv_fds(self.sock, HEAD.size, 1)
            if not head:
                os._exit(0)
            length, kind = HEAD.unpack(head + self._receive(HEAD.size - len(head)))
            start, size = unpack(self._receive(length))
            mapped = MappedFile(fds[0])
            self.orders.put(Order(Kind(kind), mapped, mapped.message(start, size)))

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                os._exit(0)
            data += more
        return data

    def tell(self, error: TgresError) -> None:
        told = {"kind": type(error).__name__, "text": str(error), "fields": vars(error)}
        self.send(Kind.ERROR, pack(told))

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        try:
            self.sock.sendall(frame(kind, payload))
        except OSError:
            os._exit(0)

    def work(self, order: Order) -> None:
        limit_memory(order.data["working_bytes"])
        request, task, limits = job.read_question(order.data)
        if task.output.is_picture:  # what is loaded isn't the query's
            lift_limit()
            pictures.load()
            limit_memory(order.data["working_bytes"])
        query = Query(order)
        remote = job.read_remote(order.data["round"], limits, order.mapped)
        known = query.lookups(order.data["round"])
        plan = make_plan(request, job.NoSource(), limits, remote, known)
        query.add(plan, order)
        made = self.in_rounds(query, plan, task)
        self.send(
            Kind.HEAD,
            pack([made.is_whole, made.is_gzipped, task.watch.laps]),
        )
        for chunk in made.chunks:
            for first in range(0, len(chunk), chunks.CHUNK_BYTES):
                self.send(Kind.CHUNK, chunk[first : first + chunks.CHUNK_BYTES])
        self.send(Kind.END)

    def in_rounds(self, query: Query, plan: Plan, task: answer.Task) -> chunks.Made:
        for _ in range(ROUNDS_MAX):
            try:
                return answer.make(plan, query.fetched, task)
            except FurtherNeeded as needed:
                wanted = needed.wanted
            number = {id(call): place for place, call in enumerate(plan.calls)}
            self.send(Kind.FURTHER, pack([[number[id(c)], list(f.targets)] for c, f in wanted]))
            order = self.orders.get()
            limit_memory(order.data["working_bytes"])
            query.extend(plan, wanted, order)
        raise AssertionError("the server ends the rounds")


class Query:
    """What the rounds of one query have brought."""

    def __init__(self, order: Order) -> None:
        self.fetched: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self._bundles: dict[Any, Any] = {}
        self._events = 0

    def lookups(self, data: job.Data) -> dict[str, Any]:
        return job.read_lookups(data, self._bundles)

    def add(self, plan: Plan, order: Order) -> None:
        data = order.data["round"]
        self.fetched += [order.mapped.array(tuple(place)) for place in data["fetches"]]
        job.read_events(data, plan, self._events)
        self._events = len(plan.planner.event_calls)
        if len(self.fetched) != len(plan.fetches):
            raise AssertionError("the plan reads other points here than in the server")

    def extend(self, plan: Plan, wanted: list[tuple[PlannedCall, Further]], order: Order) -> None:
        """Another round."""
        data = order.data["round"]
        plan.lookups.update(self.lookups(data))
        job.read_remote(data, plan.planner.limits, order.mapped, plan.remote)
        plan.extend(wanted)
        self.add(plan, order)


def limit_memory(more_bytes: int) -> None:
    """Lets this process take so much more than it has: beyond that there is a MemoryError. Shared memory doesn't
    count. Where /proc doesn't tell what it has there is no limit.
    """
    try:
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (now + more_bytes + SLACK_BYTES, hard))


def lift_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def main() -> None:
    # the server ends its workers itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(OOM_SCORE))
    except OSError:
        pass
    calm_allocator()
    functions()
    if "pictures" in sys.argv[2:]:
        pictures.load()
    Worker(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
