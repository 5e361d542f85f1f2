"""The frame of the operator verbs.

A verb is one declaration: a name, its arguments (a model: types, checks, help), whether it changes
something, and an async generator of rows. From it come the HTTP answer, the command of the CLI with its
options, and the list of verbs.

    class PurgeArgs(Args):
        batch: int | None = arg(None, "only this batch")

    @verb("series.purge", changes=True)
    async def purge(admin: Admin, args: PurgeArgs) -> AsyncIterator[Row]:
        '''Remove what is in the trash for good.'''
        yield progress(done, total, "series")
        yield {"batch": 1, "series": 10}

Rows are JSON-able dicts. Three kinds are known by their only key, all others are results:
``progress``, {"done", "total", "what"}: shown while it lasts; ``note``: a line for people;
``error``: the end of a verb that failed, made by the transport, with "status" beside it.
Units stand in the keys (…_s, …_bytes, …_at_s): tables format values by them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from tgres_py.errors import BadRequest
from tgres_py.ingest.flusher import Flusher
from tgres_py.ingest.intake import Intake
from tgres_py.ingest.journal import Journal
from tgres_py.ingest.pressure import MemoryWatch
from tgres_py.ingest.registry import Registry
from tgres_py.ingest.retention_job import RetentionWorker
from tgres_py.kernels import RingStore
from tgres_py.memory import Shares
from tgres_py.model.duration import parse_duration
from tgres_py.places import Places
from tgres_py.query.source import Source
from tgres_py.storage.postgres import PostgresStore

# The modules that declare verbs; each is imported when verbs are looked up.
MODULES = (
    "tgres_py.admin.doctor",
    "tgres_py.admin.eyes",
    "tgres_py.admin.retention",
    "tgres_py.admin.series",
    "tgres_py.admin.series_rename",
    "tgres_py.admin.series_trash",
    "tgres_py.admin.stats",
)

Row = dict[str, Any]


# An argument that is a duration: "30d", "12h" or seconds.
Duration = Annotated[float, BeforeValidator(parse_duration)]


class Args(BaseModel):
    """The arguments of a verb; immutable, unknown ones are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
    )


def arg(
    default: Any,
    help_text: str,
    *,
    positional: bool = False,
    name: str | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Any:
    """One argument. ``...`` as default: it must be given. ``positional``: no option in the CLI; ``name``:
    where the field's own can't be it (Python's words).
    """
    extra: dict[str, Any] = {"positional": positional}
    return Field(
        default, description=help_text, json_schema_extra=extra, ge=ge, gt=gt, le=le, alias=name
    )


def is_positional(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("positional"))


class Live(Protocol):
    """The parts of a running server that verbs may use, in its event loop. ``settings`` may change (SIGHUP)."""

    registry: Registry
    source: Any  # a query.source.Source, and what the server's own offers beyond it
    intake: Intake
    flusher: Flusher
    journal: Journal
    ring: RingStore
    listeners: Any  # by name
    tcp_totals: Any  # receivers.tcp.Totals
    places: Places
    statsd: Any  # receivers.statsd.StatsdReceiver, or None
    retention: RetentionWorker
    settings: Any
    shares: Shares
    memory: MemoryWatch

    async def follow(self, rrd_ids: NDArray[np.int64] | None) -> None:
        """Brings names and index in line with these rows of rrd (None: all). StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Admin:
    """What a verb works on: the store, and the server around it, None when there is none.

    ``own_settings``: those of the command line when the store is alone.
    """

    store: PostgresStore
    live: Live | None = None
    own_settings: Any = None

    @property
    def settings(self) -> Any:
        """Those of the server as they are now, or of the command line."""
        return self.own_settings if self.live is None else self.live.settings

    async def make_rows(self) -> None:
        """Series of the running server that have no row in the store yet get one. StoreUnavailable."""
        if self.live is not None and self.live.registry.uncreated:
            await self.live.flusher.create_rows()

    async def changed(self, rrd_ids: NDArray[np.int64]) -> None:
        """To be called after rows of rrd were changed: the server around the store follows at once, before
        it hears of it. StoreUnavailable."""
        if self.live is not None:
            await self.live.follow(rrd_ids)

    @property
    def source(self) -> Source | None:
        """Names and points as queries see them; None with the store alone."""
        return self.live.source if self.live is not None else None


Run = Callable[[Admin, Any], AsyncIterator[Row]]
R = TypeVar("R", bound=Callable[..., AsyncIterator[Row]])


@dataclass(frozen=True, slots=True)
class Verb:
    """``live``: needs a running server. ``stream``: its rows have no end, or are to be seen as they come."""

    name: str
    args: type[Args]
    changes: bool
    live: bool
    stream: bool
    run: Run

    @property
    def help(self) -> str:
        """The docstring of its function; the first line is the short form."""
        return inspect.getdoc(self.run) or ""

    def start(self, admin: Admin, given: Mapping[str, Any]) -> AsyncIterator[Row]:
        """Checks the arguments and gives the rows; nothing runs before the first is asked for.

        BadRequest: a wrong argument, or a server is needed and not there.
        """
        if self.live and admin.live is None:
            raise BadRequest(f"{self.name} needs a running server: point the CLI at its --url")
        try:
            args = self.args.model_validate(dict(given))
        except ValidationError as error:
            raise BadRequest(_explain(self.name, error)) from None
        return self.run(admin, args)

    def describe(self) -> Row:
        """Its declaration, for the list of verbs."""
        return {
            "verb": self.name,
            "changes": self.changes,
            "needs_server": self.live,
            "help": self.help.partition("\n")[0],
            "arguments": [
                {
                    "name": field.alias or name,
                    "required": field.is_required(),
                    "default": None if field.is_required() else field.get_default(),
                    "help": field.description,
                }
                for name, field in self.args.model_fields.items()
            ],
        }


def _explain(verb_name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"])) or "arguments"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{verb_name}: {name}: {reason[:1].lower()}{reason[1:]}"


_verbs: dict[str, Verb] = {}


def verb(
    name: str, *, changes: bool = False, live: bool = False, stream: bool = False
) -> Callable[[R], R]:
    """Declares a verb; the function's second parameter is annotated with its Args."""

    def declare(run: R) -> R:
        parameters = list(inspect.signature(run, eval_str=True).parameters.values())
        _verbs[name] = Verb(name, parameters[1].annotation, changes, live, stream, run)
        return run

    return declare


def all_verbs() -> dict[str, Verb]:
    """All verbs by name, in order of their names."""
    for module in MODULES:
        importlib.import_module(module)
    return dict(sorted(_verbs.items()))


def find_verb(name: str) -> Verb:
    """BadRequest when there is none."""
    verbs = all_verbs()
    if name not in verbs:
        raise BadRequest(f"no verb {name!r}; there are {', '.join(verbs)}")
    return verbs[name]


# -- rows --------------------------------------------------------------------------------------


def progress(done: int, total: int | None, what: str) -> Row:
    """How far a verb is; ``total`` None when nobody knows."""
    return {"progress": {"done": done, "total": total, "what": what}}


def note(text: str) -> Row:
    """A line for people; scripts don't need it."""
    return {"note": text}


def is_result(row: Row) -> bool:
    return not (row.keys() & {"progress", "note", "error"})


def parts(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``count``, for work in batches."""
    for first in range(0, count, size):
        yield slice(first, min(count, first + size))


class AdminVerbs:
    """The verbs of one server, as its HTTP side wants them."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def listing(self) -> list[Row]:
        return [one.describe() for one in all_verbs().values()]

    def start(self, name: str, given: Mapping[str, Any]) -> AsyncIterator[Row]:
        """BadRequest: no such verb, or a wrong argument."""
        return find_verb(name).start(self._admin, given)
