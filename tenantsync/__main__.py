"""`python -m tenantsync …`"""

from tenantsync.cli import main

main()
