"""`tenantsync doctor`"""

from dataclasses import asdict

import typer

from config.settings import load_settings
from tenantsync.cli.common import JsonFlag, answering, say
from tenantsync.doctor import examine


def doctor(json: JsonFlag = False) -> None:
    """Look at everything that has to be right, and say what to do about what is not."""
    with answering(as_json=json):
        findings = examine(load_settings())
        sick = [one for one in findings if one.level == "fail"]
        lines = [f"{one.level:4}  {one.about}: {one.text}" for one in findings]
        say({"ok": not sick, "findings": [asdict(one) for one in findings]}, "\n".join(lines), as_json=json)
        if sick:
            raise typer.Exit(1)
