"""iceoryx2's wheel: copied into a loan, copied out of a sample; ``park`` waits for its events."""

from __future__ import annotations

import ctypes
from itertools import repeat
from typing import Any, Callable

import iceoryx2 as iox  # type: ignore[import-untyped]
import numpy as np

from . import Frame, Run, Stream

iox.set_log_level(iox.LogLevel.Error)


class Topic(Stream):
    """A publisher, a subscriber and, to park by, an event service."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> None:
        self.shape, self.dtype, self.way = shape, dtype, way
        self.size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.node = iox.NodeBuilder.new().create(iox.ServiceType.Ipc)
        builder = self.node.service_builder(iox.ServiceName.new(name))
        payload = iox.Slice[ctypes.c_uint8]
        self.service = builder.publish_subscribe(payload).subscriber_max_buffer_size(4)
        self.service = self.service.open_or_create()
        if way == "park":
            events = self.node.service_builder(iox.ServiceName.new(f"{name}-event"))
            self.events = events.event().open_or_create()

    def _sending(self, frame: Frame) -> Callable[[], None]:
        builder = self.service.publisher_builder().initial_max_slice_len(self.size)
        publisher, source, size = builder.create(), frame.ctypes.data, self.size
        loan, copy = publisher.loan_slice_uninit, ctypes.memmove
        # Kept alive with what is returned.
        kept = (publisher, frame)

        def send() -> None:
            sample = loan(size)
            copy(sample.payload_ptr, source, size)
            sample.assume_init().send()
            assert kept

        return send

    def pairs(self, frame: Frame, out: Frame) -> Run:
        """See :class:`sides.Stream`."""
        receive = self.service.subscriber_builder().create().receive
        send, copy, target, size = self._sending(frame), ctypes.memmove, out.ctypes.data, self.size

        def run(count: int) -> None:
            for _ in repeat(None, count):
                send()
                sample = receive()
                copy(target, sample.payload_ptr, size)
                del sample

        return run

    def fresh_pairs(self, frame: Frame) -> Run:
        """See :class:`sides.Stream`."""
        receive, send = self.service.subscriber_builder().create().receive, self._sending(frame)

        def run(count: int) -> None:
            for _ in repeat(None, count):
                send()
                self._copied(receive())

        return run

    def _copied(self, sample: Any) -> Frame:
        out: Frame = np.empty(self.shape, self.dtype)
        ctypes.memmove(out.ctypes.data, sample.payload_ptr, self.size)
        return out

    def sender(self, frame: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        send = self._sending(frame)
        if self.way != "park":
            return send
        notify = self.events.notifier_builder().create().notify

        def send_and_wake() -> None:
            send()
            notify()

        return send_and_wake

    def receiver(self, out: Frame) -> Callable[[], object]:
        """See :class:`sides.Stream`."""
        take = self.service.subscriber_builder().create().receive
        copy, target, size = ctypes.memmove, out.ctypes.data, self.size
        wait = self._waiting()

        def receive() -> None:
            sample = take()
            while sample is None:
                wait()
                sample = take()
            copy(target, sample.payload_ptr, size)

        return receive

    def _waiting(self) -> Callable[[], object]:
        if self.way != "park":
            return lambda: None
        listener = self.events.listener_builder().create()
        limit = iox.Duration.from_millis(50)
        return lambda: listener.timed_wait(limit)

    def matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        return self.copied_matrix()

    def copied_matrix(self) -> Callable[[], Frame]:
        """See :class:`sides.Stream`."""
        raise NotImplementedError("a sample is received once; keep it to compute with it again")

    def close(self) -> None:
        """See :class:`sides.Stream`."""


class Iceoryx2Side:
    """iceoryx2."""

    def create(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Topic:
        """See :class:`sides.Side`."""
        return Topic(name, shape, dtype, way)

    def open(self, name: str, shape: tuple[int, ...], dtype: Any, way: str) -> Topic:
        """See :class:`sides.Side`."""
        return Topic(name, shape, dtype, way)


SIDE = Iceoryx2Side()
