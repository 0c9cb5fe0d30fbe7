"""Many small tenants at once; the fixture is in `crowd_fixtures.py`."""

from sandbox.google.specs import AccountInfo
from tests.support.fleet import TenantHandle

MANY = 25
Crowd = list[tuple[TenantHandle, AccountInfo]]
