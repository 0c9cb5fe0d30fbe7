"""`make up`: the world of the demo, kept running until Ctrl-C, with a gardener at work."""

import sys
import threading

from sandbox.asking import written_down
from sandbox.demo import OVERRIDES, TENANTS
from sandbox.gardener import Gardener
from sandbox.people import settle
from sandbox.population import plant
from sandbox.signals import Stopped, raise_on_signals
from sandbox.telling import Teller
from sandbox.world import FLOWER_USER, World

EDITS_PER_SECOND = 20.0


def main() -> int:
    raise_on_signals()
    tell = Teller()
    tell.chapter("Starting Postgres, Valkey, Supabase, a CalDAV server, a Google stand-in and the workers")
    try:
        with World(overrides=OVERRIDES, durable=True) as world:
            planted = plant(world, tenant_count=TENANTS)
            log_ins = settle(world, planted)
            world.start_web()
            world.start_all()
            environment = world.folder / "environment.sh"
            lines = (f"export {name}='{value}'" for name, value in sorted(world.product_environment().items()))
            environment.touch(mode=0o600)
            environment.write_text("\n".join(lines) + "\n")
            tell.chapter("Running. Ctrl-C stops everything.")
            tell.say(f"dashboard:    http://127.0.0.1:{world.web_port}")
            for one in log_ins:
                tell.say(f"              {one.email} / {one.password}  ({one.role}{one.tenant and ' of '}{one.tenant})")
            tell.say(f"Flower:       http://127.0.0.1:{world.flower_port}  {FLOWER_USER} / {world.flower_password}")
            tell.say(f"Supabase:     {world.gateway.url}")
            tell.say(f"command line: . {environment} && bin/tenantsync status")
            script = written_down(world, planted[0])
            tell.say(f"a task:       sh {script} demo.choose '{{}}'")
            tell.say(f'              sh {script} calendar.report \'{{"week_start": "2026-11-16", "language": "ja"}}\'')
            tell.say(f"logs:         {world.folder}")
            with Gardener(world, planted, edits_per_second=EDITS_PER_SECOND):
                threading.Event().wait()
    except Stopped as stopped:
        tell.say("stopped")
        return 0 if stopped.by_hand else stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
