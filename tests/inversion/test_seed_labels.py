"""Labels of seeds from a table."""

import pytest

from stylegan_cli.errors import SganError
from stylegan_cli.inversion.seed_labels import read_table


@pytest.fixture
def table(tmp_path):
    def write(text, **options):
        path = tmp_path / "labels.csv"
        path.write_text(text, **options)
        return path

    return write


def test_columns_of_words_and_numbers(table):
    lines = [f"{i + 5},{'yes' if i % 3 else 'no'},{i % 2},{i / 2}" for i in range(20)]
    seeds, labels = read_table(table("seed, smile ,hat,age\n" + "\n".join(lines) + "\n\n", encoding="utf-8-sig"))
    assert seeds == list(range(5, 25))
    smile, hat, age = labels
    assert (smile.name, smile.values) == ("smile", ("no", "yes")) and hat.values == ("0", "1")
    assert smile.probabilities[:, 1].tolist() == [float(i % 3 > 0) for i in range(20)]
    assert (smile.probabilities.sum(1) == 1).all()
    assert age.values == ("<=4.5", ">4.5"), "many numbers are split at their median"
    assert age.probabilities[:, 1].tolist() == [float(i / 2 > 4.5) for i in range(20)]
    assert smile.direction_name(1) == "smile=yes" and age.direction_name(1) == "age>4.5"


def test_the_seed_column_may_be_anywhere(table):
    seeds, (hat,) = read_table(table('hat,seed\n"tall, red",3\nflat,4294967295\nflat,0\n"tall, red",1\n'))
    assert seeds == [3, 4294967295, 0, 1] and hat.values == ("flat", "tall, red")


INVALID = {
    "": "not a table",
    "seed,hat\n": "not a table",
    "seed\n1\n2\n": "not a table",
    "number,hat\n1,a\n2,b\n": "not a table",
    "seed,hat,hat\n1,a,a\n2,b,b\n": "not a table",
    "seed,hat\n1,a\n2,\n": "Row 3",
    "seed,hat\n1,a\n2\n": "Row 3",
    "seed,hat\n1,a\n1,b\n1,b\n1,a\n": "seed 1 more than once",
    "seed,hat\n1,a\n-1,b\n": "'-1'",
    "seed,hat\n1,a\n1.5,b\n": "'1.5'",
    "seed,hat\n1,a\n4294967296,b\n": "4294967296",
    "seed,hat\n1,a\n2,a\n": "two or more groups",
    "seed,hat\n1,a\n2,b\n3,c\n": "two or more groups",
    "seed,age\n" + "".join(f"{i},{'nan' if i == 3 else i}\n" for i in range(20)): "two or more groups",
}


@pytest.mark.parametrize(("text", "match"), INVALID.items())
def test_invalid_tables(table, text, match):
    with pytest.raises(SganError, match=match):
        read_table(table(text))


def test_files_that_are_not_tables(table, tmp_path):
    with pytest.raises(SganError, match="cannot be read"):
        read_table(tmp_path / "missing.csv")
    path = table("")
    path.write_bytes(b"\xff\xfe\x00seed,hat")
    with pytest.raises(SganError, match="not a CSV"):
        read_table(path)


def test_a_missing_column(table):
    path = table("seed,smile,hat\n1,a,b\n2,b,a\n3,a,b\n4,b,a\n")
    assert len(read_table(path, ["hat"])[1]) == 2, "all columns are read, as the other attributes are preserved"
    with pytest.raises(SganError, match="no column 'smle'") as e:
        read_table(path, ["smle"])
    assert "smile" in e.value.hint
