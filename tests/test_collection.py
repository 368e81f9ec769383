"""Every test file runs: pytest leaves out folders by names such as `build`, and says nothing."""

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_test_file_is_collected():
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    collected = {line.partition(":")[0] for line in listed.stdout.splitlines() if ":" in line}
    written = {str(path.relative_to(TESTS.parent)) for path in TESTS.rglob("test_*.py")}
    assert len(written) > 50
    assert collected == written
