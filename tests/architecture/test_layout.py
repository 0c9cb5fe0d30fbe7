"""The checkout: names that others bear, locks that name no host, documents that say what the code says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import config
import db
import tenantsync
from config.queues import Queue
from config.settings import Settings
from db.states import MACHINES
from tests.architecture.sources import CHECKOUT

COMPOSE = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
NAMED = re.compile(r"`((?:tests|db|tenantsync|config|tasks|sandbox|benchmarks)/[\w/.*-]+)`")
FIELDS = {name.upper() for name in Settings.model_fields}


def document(name: str) -> str:
    return (CHECKOUT / name).read_text()


@pytest.mark.parametrize("package", [config, db, tenantsync], ids=lambda package: package.__name__)
def test_names_that_others_bear_are_found_in_the_checkout(package: object) -> None:
    assert Path(str(package.__file__)).is_relative_to(CHECKOUT)  # type: ignore[attr-defined]


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {path.parent for path in (CHECKOUT / "tests").rglob("*.py")}

    assert [folder.name for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock",
        "sandbox/lite/package-lock.json",
        "sandbox/browser/package-lock.json",
        "tests/contract/generated/package-lock.json",
    ],
)
def test_a_lock_names_no_host(lock: str) -> None:
    assert "://" not in document(lock)


def test_every_dependency_has_a_lower_bound_and_a_hash() -> None:
    declared = re.findall(r'^  "([A-Za-z0-9_.\[\]-]+)(.*?)",', document("pyproject.toml"), re.MULTILINE)
    loose = [
        name
        for name, bound in declared
        if not bound.startswith(">=") and "importlinter" not in name and "." not in name
    ]
    locked = document("requirements.lock")
    pins = re.findall(r"^([a-z0-9-]+)==", locked, re.MULTILINE)
    bare = re.findall(r"^[a-z0-9-]+==[^\\\n]*$", locked, re.MULTILINE)

    assert [name for name in loose if name.islower() and name in pins] == []
    assert len(pins) > 50
    assert bare == []


@pytest.mark.parametrize("name", ["celery", "redis", "kombu", "sqlalchemy", "psycopg2-binary", "flower", "supabase"])
def test_the_packages_asked_for_by_name_are_dependencies(name: str) -> None:
    product = document("pyproject.toml").partition("[dependency-groups]")[0]

    assert re.search(rf'^  "{name}(\[[a-z]+\])?>=', product, re.MULTILINE)


def test_every_setting_is_documented_and_nothing_else_is() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9_]{3,})`", document("docs/configuration.md")))

    assert named - {"DEBUG", "INFO", "WARNING", "ERROR"} == FIELDS


def test_documented_defaults_are_the_settings_defaults() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", document("docs/configuration.md"), re.MULTILINE)
    required = {"database_url": "postgresql://u:p@h/d", "redis_url": "redis://h", "supabase_url": "http://h"}
    keys = {"supabase_secret_key": "sb_secret_x", "encryption_keys": {1: b"k" * 32}}
    settings = Settings(_env_file=None, **required, **keys)  # type: ignore[call-arg]
    plain = {"–": None, "none": ()}
    documented = {
        name: Settings(_env_file=None, **required, **keys, **{name.lower(): value}).model_dump()[name.lower()]  # type: ignore[call-arg]
        for name, value in rows
        if value not in plain and not value.startswith("`")
    }

    assert len(documented) > 12
    assert {name: getattr(settings, name.lower()) for name in documented} == documented


def test_the_example_environment_names_settings_alone() -> None:
    named = set(re.findall(r"^#?([A-Z_]+)=", document(".env.example"), re.MULTILINE))

    assert named <= FIELDS
    assert {name.upper() for name, field in Settings.model_fields.items() if field.is_required()} <= named


def test_the_state_diagrams_show_every_move_and_no_other() -> None:
    text = document("docs/state_machine.md")
    for (table, column), (states, moves) in MACHINES.items():
        part = text.partition(f"`{table}.{column}`")[2].partition("\n## ")[0]
        drawn = set(re.findall(r"^  (\w+) --> (\w+)", part, re.MULTILINE))

        assert drawn == set(moves)
        assert {state.value for state in states} == set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))


def test_compose_follows_the_published_schema() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )

    assert checked.returncode == 0, checked.stdout


def services() -> dict[str, dict[str, object]]:
    """The services that run our image."""
    return {name: one for name, one in COMPOSE["services"].items() if one["image"] == "tenantsync"}


def test_compose_serves_every_queue_once() -> None:
    served = _served()

    assert sorted(served) == sorted(queue.value for queue in Queue)


def _served() -> list[str]:
    commands = [list(service["command"]) for service in services().values()]  # type: ignore[call-overload]
    return [queue for command in commands if "-Q" in command for queue in command[command.index("-Q") + 1].split(",")]


@pytest.mark.parametrize("name", services())
def test_compose_runs_commands_that_exist(name: str) -> None:
    command = [str(word) for word in services()[name]["command"]]  # type: ignore[attr-defined]
    module = command[2:3] if command[:2] == ["python", "-m"] else ["celery"]
    words = command[3:] if command[:2] == ["python", "-m"] else command[3:4]

    shown = subprocess.run(
        [sys.executable, "-m", *module, *words, "--help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={"PATH": ""},
    )

    assert shown.returncode == 0, shown.stderr


def test_compose_sets_settings_that_exist() -> None:
    for service in services().values():
        assert set(service["environment"]) <= FIELDS  # type: ignore[call-overload]


def test_the_image_holds_what_the_commands_import() -> None:
    copied = set(re.findall(r"^COPY ([a-z_.py ]+?) \S+$", document("Dockerfile"), re.MULTILINE))
    words = {word for line in copied for word in line.split()}

    assert {"config", "db", "tenantsync", "tasks", "beat_schedule.py", "flowerconfig.py"} <= words
    assert "clients/typescript/dist" in document("Dockerfile")


def test_package_json_pins_what_the_lock_holds() -> None:
    wanted = json.loads(document("sandbox/lite/package.json"))
    lock = json.loads(document("sandbox/lite/package-lock.json"))

    assert lock["packages"][""].get("dependencies") == wanted.get("dependencies")


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []


def test_documents_name_tests_and_modules_that_exist() -> None:
    broken = [
        f"{page.name}: {path}"
        for page in [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]
        for path in re.findall(
            r"`((?:tests|db|tenantsync|config|tasks|sandbox|benchmarks)/[\w/.*-]+)`", page.read_text()
        )
        if not list(CHECKOUT.glob(path.rstrip("/")))
    ]

    assert broken == []
