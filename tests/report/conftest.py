import json

import pytest
from report_fixtures import make, odd, odd_race, odd_training_named, train

from lrtool.errors import UserError
from lrtool.report import report as reports

__all__ = ["make", "odd", "odd_race", "odd_training_named", "train"]


@pytest.fixture
def refusal(tmp_path):
    """Return a function that changes a written report and returns what reading it says."""

    def refused(report, change):
        data = json.loads(reports.to_json(report))
        change(data)
        path = tmp_path / "report.json"
        path.write_text(json.dumps(data))
        with pytest.raises(UserError) as caught:
            reports.read(path)
        return str(caught.value).removeprefix(f"{path}: ")

    return refused
