"""Throw damaged data, configurations and runs at `lrtool`, and kill it: the long form of test_fuzz.

    python tests/fuzz/fuzz.py data --count 1000
    python tests/fuzz/fuzz.py configurations --count 2000 --seed 7
    python tests/fuzz/fuzz.py runs --count 1000          # every file of a training
    python tests/fuzz/fuzz.py data --only 312            # one of them, as it was

Whatever the input: no exit code 1, no traceback, an end in time, little memory, and nothing taken
that is visibly damaged. The inputs follow from the seed. Those that fail are saved. The exit code
is 1 if one did. Kills are in tests/cli/kill_loop.py; `make fuzz` runs all.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import configurations
import data_files
import run_directories
from case import REFUSED, THE_SAME

KINDS = {"data": data_files, "configurations": configurations, "runs": run_directories}
DONE, REFUSALS = 0, {2, 5}
SECONDS = 60  # for one input; most take 0.05
MEMORY = 1_500  # megabytes of the whole process


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=1000, help="inputs to try")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--only", type=int, help="try only this one, and print what it said")
    parser.add_argument("--save", type=Path, default=Path("runs/fuzz"), help="for inputs that fail")
    parser.add_argument("--worker", type=int, nargs=2, metavar=("FIRST", "END"))
    options = parser.parse_args()
    if options.worker:
        work(options.kind, options.seed, *options.worker)
        return 0
    first = options.only or 0
    end = first + 1 if options.only is not None else options.count
    failures = 0
    for number, result in tried(options.kind, options.seed, first, end):
        if options.only is not None:
            print(result["said"], result)
        if why := wrong(result):
            failures += 1
            folder = save(options, number, result)
            print(
                f"{options.kind} {number} ({result['done']}): {why}; saved in {folder}", flush=True
            )
    print(f"{failures} of {end - first} {options.kind} with seed {options.seed} failed")
    return 1 if failures else 0


def tried(kind, seed, first, end):
    """Yield number and result of each input; a process that dies is started again behind it."""
    while first < end:
        command = [sys.executable, __file__, kind, "--seed", f"{seed}", "--worker"]
        with tempfile.TemporaryFile("w+") as errors:
            worker = subprocess.Popen(
                [*command, f"{first}", f"{end}"], stdout=subprocess.PIPE, stderr=errors, text=True
            )
            with worker:
                for line in worker.stdout:
                    yield first, json.loads(line)
                    first += 1
            errors.seek(0)
            said = errors.read()
        if first < end:
            case = made(kind, seed, first)
            died = f"died with {worker.returncode}: {said[-2000:]}"
            yield first, {"died": died, "said": said, "done": case.done}
            first += 1


def wrong(result):
    """Return what is wrong with a result; "" where nothing is."""
    if "died" in result:
        return result["died"]
    code, said = result["code"], result["said"]
    faults = {
        f"exit code {code}: {said[-1000:]}": code not in {DONE, *REFUSALS},
        f"it says {said[-1000:]!r}": "Traceback" in said or "\x1b" in said,
        f"exit code {code} without a word": code != DONE and not said.strip(),
        "it is damaged, but was taken": result["taken"],
        f"it took {result['memory']} MB": result["memory"] > MEMORY,
    }
    return "; ".join(fault for fault, is_so in faults.items() if is_so)


def made(kind, seed, number):
    return KINDS[kind].case(random.Random(f"{kind}-{seed}-{number}"))


def save(options, number, result):
    folder = options.save / f"{options.kind}-{options.seed}-{number}"
    case = made(options.kind, options.seed, number)
    write(case.files, folder)
    (folder / "arguments.json").write_text(json.dumps(case.arguments))
    (folder / "said.txt").write_text(result["said"])
    return folder


def write(files, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def work(kind, seed, first, end):
    """Try inputs in this process, and print what came of each as a line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    import lrtool.experiment.preflight  # noqa: F401  (before time and memory are limited)

    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        if kind == "configurations":
            write(configurations.SOUND, folder)
        for number in range(first, end):
            case = made(kind, seed, number)
            write(case.files, folder)
            code, said = run(case.arguments, folder / "said")
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            taken = code == DONE and case.outcome == REFUSED
            if code == DONE and case.outcome == THE_SAME:
                damaged = digest(folder)
                write(case.sound, folder)
                taken = damaged != digest(folder)
            result = {"code": code, "said": said, "taken": taken, "memory": memory}
            print(json.dumps({**result, "done": case.done}), file=answers)
            for file in case.files:
                (folder / file).unlink(missing_ok=True)
            if kind == "runs":
                shutil.rmtree(folder / "run")
            if kind == "configurations":
                write({n: configurations.SOUND[n] for n in case.files}, folder)


def run(arguments, output):
    """Run `lrtool` in this process; return its exit code and what it printed."""
    from lrtool.cli.app import main as lrtool

    sys.argv = ["lrtool", *arguments]
    kept = os.dup(1), os.dup(2)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=kept[1])
    try:
        lrtool()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
    return code, output.read_text("utf-8", "replace")


def digest(folder):
    """Return the digest of the data of a configuration."""
    from lrtool.experiment.experiment import open_experiment
    from lrtool.experiment.reading import read_config

    return open_experiment(*read_config(folder / "c.yaml")).data.digest


if __name__ == "__main__":
    sys.exit(main())
