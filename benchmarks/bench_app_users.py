"""Eight users of `csist app` at once, several times in one server: errors, temporary files, and memory after each time.

Memory that is lost grows with each round; memory that the allocator keeps for the next requests does not.

python benchmarks/bench_app_users.py [SECONDS] [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

from browsing import running_app
from common import write_result

USERS = 8
BOUNDARY = "csist-boundary"
SETTLE_S = 10.0
"""Seconds after the last answer in which temporary files may still be removed."""


def ask(address: str, name: str, content: bytes) -> tuple[int, int]:
    """Unmix a file; return the status and the number of targets."""
    fields = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="mode"\r\n\r\nfast\r\n'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = (fields + head).encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
    connection.request("POST", "/api/unmix", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    answer = connection.getresponse()
    rows = json.loads(answer.read())
    connection.close()
    return answer.status, len(rows)


def memory_mb(folder: Path) -> float:
    """Return the resident memory of the process whose temporary files are in this folder, in MB."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            status = (process / "status").read_text()
        except OSError:
            continue
        if f"TMPDIR={folder}".encode() in environment.split(b"\0"):
            kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            return int(kilobytes) / 1024
    raise RuntimeError("the app does not run")


def left(folder: Path) -> list[str]:
    """Return the names of what requests have left in the folder of the app."""
    return sorted(path.name for path in folder.rglob("request-*"))


def main(seconds: float, rounds: int) -> None:
    """Let eight users unmix the sample frames for some time, round by round."""
    images = [Path(str(path)) for path in (files("csist") / "data").iterdir() if path.name.endswith(".png")]
    statuses: list[int] = []
    with tempfile.TemporaryDirectory() as name, running_app({"TMPDIR": name}) as address:
        folder = Path(name)
        for path in images:  # loads the solver
            ask(address, path.name, path.read_bytes())
        before = memory_mb(folder)

        def use(number: int, over: threading.Event) -> list[int]:
            answers: list[int] = []
            while not over.is_set():
                path = images[(number + len(answers)) % len(images)]
                answers.append(ask(address, path.name, path.read_bytes())[0])
            return answers

        after = []
        for _ in range(rounds):
            over = threading.Event()
            with ThreadPoolExecutor(USERS) as users:
                running = [users.submit(use, number, over) for number in range(USERS)]
                time.sleep(seconds)
                over.set()
                statuses += [status for each in running for status in each.result()]
            time.sleep(SETTLE_S)
            after.append(memory_mb(folder))
        remains = left(folder)
    write_result(
        "app_users",
        {
            "users": USERS,
            "seconds": seconds,
            "rounds": rounds,
            "requests": len(statuses),
            "errors": sum(status != 200 for status in statuses),
            "memory_before_mb": before,
            "memory_after_rounds_mb": after,
            "growth_after_first_round_mb": after[-1] - after[0],
            "folders_left": len(remains),
            "load_average": os.getloadavg()[0],
        },
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 4)
