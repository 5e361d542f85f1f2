"""/render's parameters: what is asked, and how the answer is to look.

Source: graphite-web 1.1.10. Decided knowingly: an unknown tz and a maxDataPoints that is no number
are ignored, as there; jsonp with a picture is refused (there a failure).
"""

from __future__ import annotations

import math
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from http_api.answer import PICTURES, Output
from http_api.formats import FORMATS
from http_api.formats.look import Look
from http_api.reply import Params, check_jsonp
from tgres_py import clock
from tgres_py.errors import BadRequest
from tgres_py.query.plan import RenderRequest
from tgres_py.target.attime import parse_at_time

FROM_DEFAULT = "-1d"
MAX_DATA_POINTS_MAX = 10**9


def zone_of(params: Params) -> tzinfo:
    """The zone of parameter ``tz``; UTC without one, and when it is unknown (as graphite-web)."""
    try:
        return ZoneInfo(params.get("tz") or "UTC")
    except (KeyError, ValueError, OSError):
        return UTC


def now_of(params: Params, zone: tzinfo) -> int:
    text = params.get("now")
    return parse_at_time(text, clock.now_s(), zone, "now") if text else clock.now_s()


def parse_request(params: Params) -> tuple[RenderRequest, Output]:
    """BadRequest names the parameter."""
    zone = zone_of(params)
    output = _output(params, zone)
    now_s = now_of(params, zone)
    ends = [
        parse_at_time(params.get(name, default) or "now", now_s, zone, name)
        for name, default in (("from", FROM_DEFAULT), ("until", "now"))
    ]
    if ends[0] == ends[1]:
        raise BadRequest("from: Invalid empty time range: from and until are the same second")
    templates = {
        name[len("template[") : -1]: params.get(name) or ""
        for name in params.names()
        if name.startswith("template[") and name.endswith("]")
    }
    targets = _targets(params)
    if output.slices is not None:
        targets = tuple(
            target for target, given in zip(targets, output.slices, strict=True) if given is None
        )
    request = RenderRequest(
        targets,
        min(ends),
        max(ends),
        now_s,
        zone,
        _xff_of(params),
        templates,
        local=params.get("local") == "1",
    )
    return request, output


def _targets(params: Params) -> tuple[str, ...]:
    targets = params.all("target") or params.all("target[]")
    return tuple(target for target in targets if target.strip())


def _output(params: Params, zone: tzinfo) -> Output:
    wanted = _format_of(params)
    is_pie = _is_pie(params)
    if is_pie and wanted not in PICTURES:
        wanted = "png"
    look = Look(bool(params.get("pretty")), "noNullPoints" in params, zone)
    picture = wanted in PICTURES
    jsonp = check_jsonp(params) if "format" in params else None
    if jsonp and picture and wanted != "png":
        raise BadRequest(f"jsonp: {wanted} can't be wrapped")
    return Output(
        wanted,
        _points_max_of(params),
        look,
        jsonp if not picture and FORMATS[wanted].javascript else None,
        _cache_s_of(params),
        {name: params.get(name) or "" for name in params.names()} if picture else {},
        tuple(map(_slice, _targets(params))) if is_pie else None,
        (params.get("meta") or "").lower() in ("1", "true"),
        params.get("explain") or "",
    )


def _format_of(params: Params) -> str:
    """Without a known name the answer is a picture (as graphite-web)."""
    wanted = params.get("format")
    if wanted is None:
        wanted = "raw" if "rawData" in params else "pickle" if "pickle" in params else "png"
    return wanted if wanted in FORMATS or wanted in PICTURES else "png"


def _is_pie(params: Params) -> bool:
    kind = params.get("graphType", "line")
    if kind not in ("line", "pie"):
        raise BadRequest(f"graphType: Invalid graphType {kind!r}, must be one of line, pie")
    return kind == "pie"


def _slice(target: str) -> tuple[str, float] | None:
    """``name:value`` is a slice by itself."""
    name, colon, value = target.partition(":")
    if not colon:
        return None
    try:
        size = float(value)
    except ValueError:
        size = math.nan
    if not math.isfinite(size):
        raise BadRequest(f"target: {target!r} is no slice of a pie: name:number is")
    return name, size


def _cache_s_of(params: Params) -> int:
    seconds = params.number("cacheTimeout") if params.get("cacheTimeout") else 0
    return 0 if "noCache" in params else max(0, seconds)


def _xff_of(params: Params) -> float:
    text = params.get("xFilesFactor")
    if text is None:
        return 0.0
    try:
        xff = float(text)
    except ValueError:
        xff = math.nan
    if math.isnan(xff):
        raise BadRequest(f"xFilesFactor: {text!r} is no number")
    return xff


def _points_max_of(params: Params) -> int | None:
    """Not a number counts as not given, as in graphite-web; 0 is refused (there a failure)."""
    text = params.get("maxDataPoints") or ""
    if not (text.isascii() and text.isdecimal()):
        return None
    points_max = int(text) if len(text) < 10 else MAX_DATA_POINTS_MAX
    if points_max == 0:
        raise BadRequest("maxDataPoints: must be 1 or more")
    return points_max
