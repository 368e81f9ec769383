"""Tables that a run was not trained on: units, types, widths and numbers as words."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as files

from lrtool.config.schema import DataConfig
from lrtool.data.load import load
from lrtool.errors import DataError, LrtoolWarning


def read(folder, path, known=None, **args):
    spec = DataConfig(source="csv", args={"path": path, "target": "y", **args}, batch_size=2)
    return load(spec, seed=0, factory=None, directories=[folder], encoding=known)


def weights(folder, name, unit, count=12, scale=1):
    rows = "".join(f"{(5 + i) * scale}{unit},{i % 2}\n" for i in range(count))
    (folder / name).write_text("weight,y\n" + rows)


@pytest.mark.parametrize(
    ("unit", "words"), [(" g", "holds '5000 g'"), ("", "holds '5000'"), (" kg", None)]
)
def test_another_unit_than_the_trainings_is_refused(tmp_path, unit, words):
    weights(tmp_path, "a.csv", " kg")
    known = read(tmp_path, "a.csv", numeric=["weight"]).encoding
    assert known.inputs.columns[0].marks == "kg"
    if words is None:
        weights(tmp_path, "b.csv", unit)
        read(tmp_path, "b.csv", known, numeric=["weight"])
        return
    weights(tmp_path, "b.csv", unit, scale=1000)
    with pytest.raises(DataError) as caught:
        read(tmp_path, "b.csv", known, numeric=["weight"])
    assert str(caught.value).endswith(
        f"b.csv: line 2: column 'weight' {words}, but in the training its numbers had the mark "
        "'kg'; correct the column"
    )


def test_so_is_one_of_the_target(tmp_path):
    for name, unit, scale in (("a.csv", "%", 1), ("b.csv", "", 0.01)):
        rows = "".join(f"{i},{(30 + i) * scale:g}{unit}\n" for i in range(30))
        (tmp_path / name).write_text("x,y\n" + rows)
    known = read(tmp_path, "a.csv", numeric=["y"]).encoding
    assert known.targets.marks == "%"
    with pytest.raises(DataError, match=r"'0.3', but in the training its numbers had the mark '%'"):
        read(tmp_path, "b.csv", known, numeric=["y"])


def test_another_width_without_a_header_is_refused(tmp_path):
    rows = [f"{i % 5},{i % 3},{i}" for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "b.csv").write_text("\n".join(f"{i},{row}" for i, row in enumerate(rows)) + "\n")
    args = {"header": False, "target": 2, "task": "regression"}
    known = read(tmp_path, "a.csv", **args).encoding
    with pytest.raises(DataError, match="line 1: 4 columns, but the run was trained on 3"):
        read(tmp_path, "b.csv", known, **args)
    spec = DataConfig(
        source="csv", args={"path": "a.csv", **args}, validation="b.csv", batch_size=2
    )
    with pytest.raises(DataError, match=r"b.csv: line 1: 4 columns, but .*a.csv has 3"):
        load(spec, seed=0, factory=None, directories=[tmp_path])


def table(folder, name, minutes):
    columns = {"minutes": minutes, "x": pa.array(np.arange(12.0) ** 2), "y": [0, 1] * 6}
    files.write_table(pa.table(columns), folder / name)


def test_a_column_that_holds_no_numbers_any_more(tmp_path):
    table(tmp_path, "a.parquet", pa.array(np.arange(12.0) * 3 % 7))
    spec = DataConfig(source="parquet", args={"path": "a.parquet", "target": "y"}, batch_size=2)

    def found(path, known=None, validation=0.2):
        args = {"path": path, "target": "y"}
        return load(
            spec.model_copy(update={"args": args, "validation": validation}),
            seed=0,
            factory=None,
            directories=[tmp_path],
            encoding=known,
        )

    known = found("a.parquet").encoding
    table(tmp_path, "b.parquet", pa.array(range(12), pa.duration("s")))
    table(tmp_path, "c.parquet", pa.array([None] * 12, pa.float64()))
    for read_it in (lambda name: found(name, known), lambda name: found("a.parquet", None, name)):
        with pytest.raises(DataError, match=r"column 'minutes' holds duration\[s\], neither"):
            read_it("b.parquet")
        with pytest.warns(LrtoolWarning, match="'minutes' holds no value: the median of the train"):
            read_it("c.parquet")


def test_numbers_as_words_are_known_by_their_value(tmp_path):
    """pandas writes 1.0 for 1 where others of the column are missing."""
    (tmp_path / "a.csv").write_text(
        "code,y\n" + "".join(f"{i % 3 + 1},{i % 2}\n" for i in range(12))
    )
    (tmp_path / "b.csv").write_text("code,y\n1.0,0\n2.0,1\n3.0,0\n,1\n")
    args = {"path": "a.csv", "target": "y", "categorical": ["code"]}
    spec = DataConfig(source="csv", args=args, validation="b.csv", batch_size=2)
    with pytest.warns(LrtoolWarning, match="column 'code': 1 of 16 rows hold no value"):
        made = load(spec, seed=0, factory=None, directories=[tmp_path])
    assert made.validation.inputs.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
