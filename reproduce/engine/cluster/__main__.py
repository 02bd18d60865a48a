"""Start Ray on this machine, or wait for a cluster that is being started.

python -m reproduce.engine.cluster --hold                    used by all.sh; prints the address
python -m reproduce.engine.cluster --wait HOST:PORT HOSTS    used by slurm.sh
"""

import sys

from reproduce import RunError
from reproduce.engine.cluster.connection import hold, wait_for

if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    try:
        if command == "--hold":
            hold()
        elif command == "--wait":
            wait_for(rest[0], int(rest[1]))
    except RunError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
