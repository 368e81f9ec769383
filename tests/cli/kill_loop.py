"""Kill runs with −9 at random moments, resume them, and compare: a long form of test_resume.

    python tests/cli/kill_loop.py --runs 30 --workers 0
    python tests/cli/kill_loop.py --runs 30 --ranks 2
    python tests/cli/kill_loop.py --config my.yaml --kills 5

Each kill comes when the log has grown to a random size, or a little later. Every run must end in
the same rows and the same weights, to the last bit, as one that nobody killed. The exit code is 1
if one did not, or if one ended before it could be killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from small import CONFIG, NET, contents

LOG = "metrics.jsonl"
LATER = 0.03  # seconds: some kills fall between two rows, into a checkpoint


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=30, help="runs to kill and to resume")
    parser.add_argument("--kills", type=int, default=1, help="times that each run is killed")
    parser.add_argument("--workers", type=int, default=0, help="data.workers")
    parser.add_argument("--ranks", type=int, default=1, help="processes; one is killed, or all")
    parser.add_argument("--epochs", type=int, default=20, help="of the small built-in training")
    parser.add_argument("--config", type=Path, help="a configuration of your own")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311  (no secret)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "net.py").write_text(NET)
        (here / "small.yaml").write_text(CONFIG)
        config = options.config.resolve() if options.config else here / "small.yaml"
        own = [] if options.config else ["--epochs", str(options.epochs)]
        command = [sys.executable, "-m", "lrtool", "train", str(config), "--quiet", *own]
        if options.ranks > 1:
            torchrun = ["torch.distributed.run", "--nproc-per-node", str(options.ranks)]
            command[2:3] = [*torchrun, "-m", "lrtool"]
        command += ["--set", f"data.workers={options.workers}", "--resume", "auto", "--output"]

        subprocess.run([*command, "whole"], cwd=here, check=True, stdout=subprocess.DEVNULL)
        length = (here / "whole" / LOG).stat().st_size
        wanted, wrong, killed = contents(here / "whole"), 0, 0
        for number in range(1, options.runs + 1):
            name = f"run-{number}"
            sizes = sorted(moments.uniform(0, 0.9 * length) for _ in range(options.kills))
            kills = sum(
                kill(here / name / LOG, size, moments, [*command, name], here) for size in sizes
            )
            subprocess.run([*command, name], cwd=here, check=True, stdout=subprocess.DEVNULL)
            same = contents(here / name) == wanted
            killed, wrong = killed + bool(kills), wrong + (not same)
            print(f"run {number}: killed {kills} times, {'the same' if same else 'DIFFERENT'}")  # noqa: T201  (a script)
        print(f"{killed} of {options.runs} runs were killed; {wrong} differ")  # noqa: T201  (likewise)
    return 1 if wrong or killed < options.runs else 0


def kill(log: Path, size: float, moments: random.Random, command: list[str], folder: Path) -> bool:
    """Start a command and kill it soon after its log has a size; tell whether it ran.

    Of several ranks, one is killed, or all and torchrun with them.
    """
    later = moments.uniform(0, LATER)
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and (not log.exists() or log.stat().st_size < size):
        time.sleep(0.001)
    try:
        process.wait(later)
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = children if "torch.distributed.run" in command else []
        if ranks and moments.random() < 0.5:
            os.kill(int(moments.choice(ranks)), signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
            for rank in ranks:  # torchrun gives each a session of its own
                with suppress(ProcessLookupError):
                    os.kill(int(rank), signal.SIGKILL)
        process.wait()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
