"""The project's one error hierarchy: each error has an HTTP status, a counter name and a sentence for people."""

from __future__ import annotations


class TgresError(Exception):
    """Base of all errors that a person is meant to read.

    ``status`` is the HTTP status it becomes, ``counter`` the label under which it is counted.
    The text is one plain line that says what to do.
    """

    status = 500
    counter = "internal"


class ConfigError(TgresError):
    """A setting, rule file or retention that stops the start; the text names file, line and mend."""

    counter = "config"


class BadRequest(TgresError):
    """A request that can't be answered; the text names the parameter."""

    status = 400
    counter = "bad_request"


class TargetSyntaxError(BadRequest):
    """A target that doesn't parse. ``position`` counts characters from 0."""

    counter = "target_syntax"

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"{message} at position {position}")
        self.position = position


class LimitExceeded(BadRequest):
    """Something larger than a setting allows."""

    counter = "limit"

    def __init__(self, what: str, value: int, limit: int, setting: str) -> None:
        super().__init__(f"{what}: {value} is more than the {limit} that setting {setting} allows")
        self.value = value
        self.limit = limit
        self.setting = setting


class MemoryExceeded(LimitExceeded):
    """A query that needs more memory than it can have."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__("bytes that this query needs", needed, limit, "memory_max")


class StoreUnavailable(TgresError):
    """PostgreSQL can't be reached at the moment; the operation may be repeated."""

    status = 503
    counter = "store_unavailable"


class Overloaded(TgresError):
    """Too much at a time; the request may be repeated. ``setting``: the limit."""

    status = 503
    counter = "overloaded"

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class WorkerFailed(TgresError):
    """The process that was to make an answer died; the same query may kill the next one, too."""

    counter = "worker"


class NotInstalled(TgresError):
    """Something that needs an optional dependency that isn't there."""

    status = 501
    counter = "not_installed"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} aren't installed on this server: pip install 'tgres-py[{extra}]'")
