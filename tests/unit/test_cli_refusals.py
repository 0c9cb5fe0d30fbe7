"""What the command line takes for a refusal, and what for a bug."""

from importlib import import_module

import pytest
import typer

from tenantsync.cli import COMMANDS
from tenantsync.cli.common import EXPECTED_BY_NAME, answering
from tenantsync.mirror.supabase import MirrorUnavailable


@pytest.mark.parametrize("name", sorted(EXPECTED_BY_NAME))
def test_every_error_that_is_expected_by_name_is_there(name: str) -> None:
    module, _, kind = name.rpartition(".")

    assert issubclass(getattr(import_module(module), kind), Exception)


def test_a_descendant_of_an_expected_error_is_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), answering(as_json=False):
        raise MirrorUnavailable("timeout", "supabase.test did not answer in time")

    assert capsys.readouterr().err == "timeout: supabase.test did not answer in time\n"


def test_anything_else_is_a_bug_and_shows_itself() -> None:
    with pytest.raises(LookupError), answering(as_json=False):
        raise LookupError("a bug")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_where_it_is_looked_for(command: str) -> None:
    module, attribute, _ = COMMANDS[command]

    assert callable(getattr(import_module(f"tenantsync.cli.{module}"), attribute))
