"""Bring metrics to a tracking server while jobs run; a mirror, whose failure fails nothing.

in:  data/<scale>/training_state/*/*/metrics.jsonl, which jobs write
out: nothing that a rule reads
"""

from os import getpid
from subprocess import Popen


def follow_runs():
    """Start what brings metrics to a server; it ends when this process does, however that is."""
    if STORE.startswith("http"):
        Path("logs/tracking").mkdir(parents=True, exist_ok=True)
        with open("logs/tracking/follow.log", "a") as follow_log:
            command = ["geomem", "track", "follow", "--scale", SCALE, "--parent", str(getpid())]
            Popen(command, stdout=follow_log, stderr=follow_log)


def tell_pending():
    """Tell what has not arrived in the store."""
    if Path(MIRROR).exists() and (pending := read_json(MIRROR)["pending"]):
        print(f"{len(pending)} runs are not in {STORE} yet; later: `geomem track upload`")
