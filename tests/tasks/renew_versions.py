"""Renew the record of the code behind the costly stages; the argument says why.

See CONTRIBUTING.md, "Stages and their versions".
"""

import json
import sys
from pathlib import Path

from flows.stages import STAGES
from tasks.shards import POOL
from tasks.source import code_digest

RECORD = Path(__file__).with_name("versions.json")


def main():
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit("expected one argument, the reason: what changed, and why the output does not.")
    known = json.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}
    for stage in (*STAGES, POOL):
        now = {"version": stage.version, "code": code_digest(stage.modules)}
        before = known.get(stage.name, {})
        if not stage.keyed_by_code and {name: before.get(name) for name in now} != now:
            known[stage.name] = now | {"reason": sys.argv[1]}
    RECORD.write_text(json.dumps(known, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
