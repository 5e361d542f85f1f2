"""Async tests that run on each event loop a server may have."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs an async test on asyncio's own loop and on uvloop; its other parameters are as they were."""

    def run(loop: Callable[[], asyncio.AbstractEventLoop], **others: Any) -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(test(**others))

    own = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), loop])  # type: ignore[attr-defined]  # pytest reads it
    run.__doc__ = test.__doc__
    both = pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.new_event_loop])
    return both(run)
