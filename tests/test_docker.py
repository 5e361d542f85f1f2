"""docker/: the image's recipe, compose files, systemd files. What can be checked without a container engine."""

from __future__ import annotations

import configparser
import fnmatch
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from receivers import carbon_line
from tests.fake_sink import FakeRegistry
from tgres_py.config import setting_fields
from tgres_py.config_sources import load
from tgres_py.statsd.parser import LineParser
from tgres_py.statsd.settings import StatsdSettings

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
SYSTEMD = DOCKER / "systemd"
COMPOSE = sorted(DOCKER.glob("compose*.yml"))
DOCKERFILE = DOCKER / "Dockerfile"


def instructions() -> Iterator[tuple[str, str]]:
    """(instruction, its text) in the file's order; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", "", text).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


def last_stage() -> list[tuple[str, str]]:
    steps = list(instructions())
    return steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]


def environment() -> dict[str, str]:
    text = " ".join(rest for name, rest in last_stage() if name == "ENV")
    return dict(re.findall(r"(\w+)=(\S+)", text))


def settings_of(environ: dict[str, str]) -> Any:
    known = {f"TGRES_{name.upper()}" for name in setting_fields()} | {"TGRES_CONFIG"}
    given = {key: value for key, value in environ.items() if key.startswith("TGRES_")}
    assert given.keys() <= known, given.keys() - known
    return load(None, {}, given)


# -- the image


def test_base_images_are_pinned_and_the_last_stage_only_takes() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2 and all(re.fullmatch(r"python:3\.\d+-slim-\w+", b) for b in bases)
    runs = " ".join(rest for name, rest in last_stage() if name == "RUN")
    assert not re.search(r"\b(pip|apt-get|gcc)\b", runs)
    assert not [name for name, _ in instructions() if name == "ADD"]


def test_it_runs_as_a_user_without_rights() -> None:
    steps = last_stage()
    user = next(i for i, (name, _) in enumerate(steps) if name == "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", steps[user][1])
    assert not [name for name, _ in steps[user:] if name in ("RUN", "COPY")]


def test_start_and_health_check_are_programs_not_shell_lines() -> None:
    steps = dict(last_stage())
    assert json.loads(steps["ENTRYPOINT"]) + json.loads(steps["CMD"]) == ["tgres", "serve"]
    check = steps["HEALTHCHECK"].partition("CMD ")[2]
    assert "/healthz" in json.loads(check)[-1]  # not /readyz: a restart doesn't mend PostgreSQL


def test_settings_and_ports_of_the_image() -> None:
    settings = settings_of(environment())
    exposed = {int(port.split("/")[0]) for port in dict(last_stage())["EXPOSE"].split()}
    listeners = (settings.http, settings.carbon, settings.pickle, settings.statsd)
    assert {listener.port for listener in listeners} == exposed
    assert all(listener.host == "0.0.0.0" for listener in listeners)
    assert settings.statsd_mgmt.host == "127.0.0.1"  # it knows no password
    assert str(settings.http.port) in dict(last_stage())["HEALTHCHECK"]
    assert str(settings.data_dir) == dict(last_stage())["VOLUME"]


def ignored(path: str) -> bool:
    """.dockerignore's rule: the last pattern that matches the path, or a folder above it, decides."""
    result = False
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [
            name for a in above for name in ({a, a.rpartition("/")[2]} if "**/" in line else {a})
        ]
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            result = not line.startswith("!")
    return result


def test_the_builder_gets_what_it_copies_and_nothing_else() -> None:
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    sources = [s for words in copied for s in words if not words[0].startswith("--from")]
    assert sources
    for source in sources:
        path = ROOT / source
        assert path.exists(), source
        files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
        for file in files:
            generated = file.suffix in (".so", ".pyc") or file.match("tgres_py/kernels/*.c")
            assert ignored(file.relative_to(ROOT).as_posix()) == generated, file
    for other in (
        ".git/HEAD",
        "tests/conftest.py",
        "docker/.env",
        ".venv/bin/python",
        "tgres-data/pg",
    ):
        assert ignored(other), other


@pytest.mark.slow
def test_the_first_stage_s_steps_build_a_server_that_starts(tmp_path: Path) -> None:
    """Its RUN lines as a script, with folders of this test for /src and /opt/tgres; apt-get is left out.
    Takes a minute and needs a package index and a compiler.
    """
    src, opt = tmp_path / "src", tmp_path / "opt"
    src.mkdir()
    script = ["set -eu", f"cd {src}"]
    for name, rest in instructions():
        if name == "FROM" and " AS " not in rest:
            break
        if name == "COPY":
            *sources, target = rest.split()
            script.append(f"cd {ROOT} && cp -R {' '.join(sources)} {src / target} && cd {src}")
        elif name == "RUN" and "apt-get" not in rest:
            script.append(rest.replace("/opt/tgres", str(opt)))
    tools = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    run = subprocess.run(["sh", "-c", "\n".join(script)], env=tools, capture_output=True, text=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    version = subprocess.run([opt / "bin" / "tgres", "--version"], capture_output=True, text=True, check=True)  # fmt: skip
    assert version.stdout.startswith("tgres ")


# -- compose


def services(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    return found


each_service = pytest.mark.parametrize(
    ("file", "name"), [(path.name, name) for path in COMPOSE for name in services(path)]
)


def service(file: str, name: str) -> dict[str, Any]:
    return services(DOCKER / file)[name]


@each_service
def test_images_are_pinned(file: str, name: str) -> None:
    image = service(file, name)["image"]
    assert re.fullmatch(r"[a-z/-]+:(\d+\.\d+(\.\d+)?|local)", image)


@each_service
def test_ports_are_bound_to_loopback_unless_asked(file: str, name: str) -> None:
    for port in service(file, name).get("ports", []):
        assert re.match(
            r"(127\.0\.0\.1|\$\{TGRES_BIND:-127\.0\.0\.1\}):\d+:\d+/(tcp|udp)$", port
        ), port
    assert "network_mode" not in service(file, name)


@each_service
def test_passwords_come_from_outside_and_have_no_default(file: str, name: str) -> None:
    for key, value in service(file, name).get("environment", {}).items():
        if "PASSWORD" in key or "TOKEN" in key:
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), key
        assert not re.search(r"://[^/@]*:[^/@$]+@", str(value)), "a password inside a URL"


@each_service
def test_health_restart_and_rights(file: str, name: str) -> None:
    one = service(file, name)
    check = one["healthcheck"]
    assert check.get("disable") or check["test"][0] == "CMD"
    assert one["restart"] == "unless-stopped"
    if name != "postgres":
        assert one["read_only"] and one["cap_drop"] == ["ALL"]
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in one


@each_service
def test_files_and_services_that_are_named_exist(file: str, name: str) -> None:
    one = service(file, name)
    whole = yaml.safe_load((DOCKER / file).read_text(encoding="utf-8"))
    for volume in one.get("volumes", []):
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert (DOCKER / source).exists() and mode == ["ro"], volume
        else:
            assert source in whole["volumes"], volume
        assert target.startswith("/")
    assert set(one.get("depends_on", ())) <= whole["services"].keys()
    if "build" in one:
        assert (DOCKER / one["build"]["context"] / one["build"]["dockerfile"]).samefile(DOCKERFILE)


def test_every_variable_is_explained_in_the_example_and_secrets_are_empty_there() -> None:
    asked = {
        v for path in COMPOSE for v in re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8"))
    }
    example = (DOCKER / "env.example").read_text(encoding="utf-8")
    assert asked == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    assert all(not value for value in re.findall(r"^[A-Z_]+=(.*)$", example, re.MULTILINE))


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_settings_of_the_server_in_compose(path: Path) -> None:
    one = services(path)["tgres"]
    given = {k: v for k, v in one["environment"].items() if not v.startswith("${")}
    mounts = dict(v.split(":")[1::-1] for v in one["volumes"])
    inside = {
        k: v.replace("/etc/tgres", str(DOCKER / mounts["/etc/tgres"])) for k, v in given.items()
    }
    settings = settings_of({**environment(), **inside})
    assert str(settings.data_dir) in mounts
    assert int(one["stop_grace_period"].removesuffix("s")) > settings.shutdown_s
    specs = settings.rule_set().match_many(
        ["carbon.agents.h-a.errors", "stats_counts.a", "web1.load"]
    )
    assert [spec.archives[0].step_s for spec in specs] == [60, 10, 10]
    assert [spec.cf.value for spec in specs] == ["average", "sum", "average"]


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return (
        subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not has_compose(), reason="docker with its plugin compose isn't here")
@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_docker_compose_takes_the_file(path: Path) -> None:
    secrets = {"POSTGRES_PASSWORD": "p", "GRAFANA_PASSWORD": "g", "TGRES_DSN": "postgresql://a@b/c"}
    command = ["docker", "compose", "-f", str(path), "--profile", "*", "config", "--quiet"]
    run = subprocess.run(
        command, env={**os.environ, **secrets}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    without = subprocess.run(command, env={**os.environ, "POSTGRES_PASSWORD": ""}, capture_output=True, check=False)  # fmt: skip
    assert without.returncode != 0


def test_sample_sender_s_lines_are_understood() -> None:
    spec = importlib.util.spec_from_file_location("sample_sender", DOCKER / "sample_sender.py")
    assert spec and spec.loader
    sender = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sender)
    lines = "".join(sender.plaintext(1_700_000_500)).encode()

    parsed = carbon_line.parse(lines, 1_700_000_500, FakeRegistry())
    assert len(parsed.block) == 15 and not parsed.rejected
    reader = LineParser(StatsdSettings())
    for line in sender.statsd().decode().split("\n"):
        _, events, bad = reader.parse(line)
        assert len(events) == 1 and not bad, line


# -- systemd


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # a method is put in another's place
    parser.read_string((SYSTEMD / "tgres.service").read_text(encoding="utf-8"))
    return parser


def test_unit_starts_the_server_with_limits_and_without_rights() -> None:
    part = unit()["Service"]
    assert part["ExecStart"].split()[1:] == ["serve", "--config", "/etc/tgres/tgres.toml"]
    assert int(part["TimeoutStopSec"]) > load(None, {}, {}).shutdown_s
    assert int(part["LimitNOFILE"]) > load(None, {}, {}).connections_max
    assert part["User"] == "tgres" and part["CapabilityBoundingSet"] == ""
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictSUIDSGID"):
        assert part[key] == "yes"
    assert part["ProtectSystem"] == "strict" and part["StateDirectory"] == "tgres"


def test_unit_s_files_agree() -> None:
    settings = load(SYSTEMD / "tgres.toml", {}, {})
    assert str(settings.data_dir) == f"/var/lib/{unit()['Service']['StateDirectory']}"
    assert (
        settings.rule_set().match("carbon.agents.a.b").archives[0].step_s == settings.self_metrics_s
    )
    account = re.search(r"^u (\S+) - \".*\" (\S+)$", (SYSTEMD / "tgres.sysusers").read_text(), re.M)
    assert account and account.groups() == ("tgres", str(settings.data_dir))
    lines = (SYSTEMD / "tgres.tmpfiles").read_text().splitlines()
    entries = [line.split() for line in lines if not line.startswith("#")]
    assert all(len(e) == 6 and e[0] in "dz" and e[1].startswith("/etc/tgres") for e in entries)
    size = re.search(r"^net.core.rmem_max = (\d+)$", (SYSTEMD / "tgres.sysctl").read_text(), re.M)
    assert size and int(size[1]) >= settings.udp_buffer_bytes
    assert "dsn" in tomllib.loads((SYSTEMD / "tgres.toml").read_text(encoding="utf-8"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (SYSTEMD / "tgres.service").read_text(encoding="utf-8")
    copy = tmp_path / "tgres.service"
    copy.write_text(text.replace("/opt/tgres/bin/tgres", sys.executable))
    run = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
    )
    ours = [line for line in run.stderr.splitlines() if "tgres.service" in line]
    assert not ours
    copy.write_text(text.replace("ProtectHome=yes", "ProtectHom=yes"))
    run = subprocess.run(
        ["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False
    )
    assert "ProtectHom" in run.stderr  # it does look
