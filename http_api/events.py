"""/events: what happened when, for annotations and the function events().

    POST /events            {"what": "…", "tags": ["a", "b"] or "a b", "data": "…", "when": epoch seconds}
    GET  /events/get_data   from, until, tags, set, jsonp    [{"when", "what", "data", "tags", "id"}]
    GET  /events/ID         {"id", "when": "2026-05-12T13:57:20Z", "what", "data", "tags"}
    GET  /events            as get_data

``tags`` of a query are separated by blanks; ``set=union`` asks for one of them, else all are needed.
Both ends of the range are inclusive. In get_data ``when`` is a whole number and ``tags`` a list of texts
always (Grafana's Go side refuses anything else). Source: graphite-web 1.1.10, which also drops tags
that no event has from the query (an accident of its library; not here), and shows HTML at the last
two without ``Accept: application/json``. Errors are ``{"error": "…"}``.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import orjson
from aiohttp import web

from http_api.json_errors import reply_json_error
from http_api.queries import Queries, memory
from http_api.render_params import now_of, zone_of
from http_api.reply import Params, body_of, read_params, reply, reply_json
from http_api.room import Share
from tgres_py import clock
from tgres_py.errors import BadRequest, LimitExceeded
from tgres_py.model.event import Event, EventQuery, text_bytes
from tgres_py.query.source import Source
from tgres_py.target.attime import parse_at_time

TAGS_MAX = 100
WHAT_CHARS_MAX = 4_096
AT_S_MAX = 253_000_000_000.0  # in the year 9987

# so many are read at first, and STEP times as many each time until all are there
EVENTS_FIRST, TEXT_BYTES_FIRST, STEP = 1_000, 64 << 10, 4
# memory: of an event besides its texts; of a byte of these as it comes, as text and in the body
EVENT_BYTES, TEXT_TIMES = 1_000, 6

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EventSettings(Protocol):
    @property
    def response_bytes_max(self) -> int: ...
    @property
    def events_max(self) -> int: ...


class Events:
    """The views over one source."""

    def __init__(self, source: Source, settings: EventSettings, queries: Queries) -> None:
        self.source = source
        self.settings = settings
        self.room = queries.room

    async def add(self, request: web.Request) -> web.Response:
        event = parse_event(await body_of(request), clock.now())
        await self.source.add_event(event)
        return reply(b"", "text/plain; charset=utf-8")

    async def find(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        most = self.settings.events_max
        bytes_max = self.settings.response_bytes_max
        wanted = parse_query(params, most)._replace(bytes_max=bytes_max)
        async with memory(request, self.room, 0) as share:
            # tags= without any tag finds nothing (as in graphite-web)
            found = [] if wanted.tags == () else await self._read(wanted, share)
            if len(found) > most:
                raise LimitExceeded("events to list", len(found), most, "events_max")
            # when events were left out for their bytes, those that came are too many already
            return await reply_json(
                lambda: map(_row, found), params, request, len(found), bytes_max
            )

    async def _read(self, wanted: EventQuery, share: Share) -> list[Event]:
        """What is wanted, or more bytes than that; as much at a time as there is memory for."""
        number, size = EVENTS_FIRST, TEXT_BYTES_FIRST
        while True:
            part = wanted._replace(
                limit=min(number, wanted.limit), bytes_max=min(size, wanted.bytes_max)
            )
            await share.grow(part.limit * EVENT_BYTES + part.bytes_max * TEXT_TIMES)
            found = await self.source.find_events(part)
            texts = sum(map(text_bytes, found))
            if len(found) >= wanted.limit or texts > wanted.bytes_max:
                return found
            if len(found) >= part.limit:
                number *= STEP
            elif texts > part.bytes_max:
                size *= STEP
            else:
                return found
            del found

    async def one(self, request: web.Request) -> web.StreamResponse:
        params = await read_params(request)
        event = await self.source.get_event(int(request.match_info["id"]))
        if event is None:
            return reply_json_error(404, "Event matching query does not exist")
        row = {
            "id": event.id,
            "when": iso_time(event.at_s),
            "what": event.what,
            "data": event.data,
            "tags": event.tags,
        }
        return await reply_json(lambda: row, params, request)


def parse_event(body: bytes, now_s: float) -> Event:
    """An event as posted. BadRequest names what is wrong."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadRequest("body: must be a JSON object")
    what, data = _text(fields, "what"), _text(fields, "data")
    if not what and fields.get("what") is None:
        raise BadRequest("what: is missing")
    if len(what) > WHAT_CHARS_MAX:
        raise BadRequest(f"what: {len(what)} characters are more than {WHAT_CHARS_MAX}")
    at_s = fields.get("when", now_s)
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= AT_S_MAX:
        raise BadRequest("when: must be seconds since 1970")
    return Event(what, float(at_s), _tags(fields.get("tags")), data)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if "\x00" in text:
        raise BadRequest(f"{name}: holds a NUL character")
    return text


def _tags(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
        value = " ".join(value)
    if not isinstance(value, str):
        raise BadRequest('"tags" must be an array or space-separated string')
    if "\x00" in value:
        raise BadRequest("tags: hold a NUL character")
    tags = tuple(value.split())
    if len(tags) > TAGS_MAX:
        raise BadRequest(f"tags: {len(tags)} are more than {TAGS_MAX}")
    return tags


def parse_query(params: Params, events_max: int) -> EventQuery:
    """One event more than may be listed is asked for, so that it shows when there are too many."""
    zone = zone_of(params)
    now_s = now_of(params, zone)
    from_text, until_text = params.get("from"), params.get("until")
    from_s = parse_at_time(from_text, now_s, zone, "from") if from_text else 0
    until_s = parse_at_time(until_text, now_s, zone, "until") if until_text else clock.now()
    text = params.get("tags")
    tags = None if text is None else tuple(text.split())
    if tags is not None and len(tags) > TAGS_MAX:
        raise BadRequest(f"tags: {len(tags)} are more than {TAGS_MAX}")
    return EventQuery(from_s, until_s, tags, params.get("set") != "union", events_max + 1)


def _row(event: Event) -> dict[str, Any]:
    return {
        "when": math.floor(event.at_s),
        "what": event.what,
        "data": event.data,
        "tags": event.tags,
        "id": event.id,
    }


def iso_time(at_s: float) -> str:
    """``2026-05-12T13:57:20Z``; milliseconds only when there are any."""
    moment = _EPOCH + timedelta(seconds=at_s)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond // 1000:03d}Z" if moment.microsecond else f"{text}Z"
