"""A nursery that lives in an async context manager without changing its body's exception; and calls in threads."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """`trio.to_thread.run_sync`; raises OSError where the system gives no thread, which may pass as a full disk does.

    A page that starts workers without end can take all that a container may have.
    """
    try:
        return await trio.to_thread.run_sync(call, *arguments, **options)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error


@asynccontextmanager
async def open_tasks() -> AsyncIterator[trio.Nursery]:
    """A nursery for background tasks, cancelled when the body ends.

    The body's exception leaves as it is: a plain nursery wraps it in an ExceptionGroup, once per level. An exception of
    a background task cancels the body and leaves as an ExceptionGroup, as always; it stands for a bug.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                # Kept, cancellation included, and raised again one level further out.
                body_error = error
            nursery.cancel_scope.cancel()
    except (trio.Cancelled, BaseExceptionGroup) as ended:
        # Cancelled from outside while it waited for the tasks: what the body has to say is more.
        bugs = ended.split(trio.Cancelled)[1] if isinstance(ended, BaseExceptionGroup) else None
        if body_error is None or bugs is not None:
            raise
    if body_error is not None:
        raise body_error
