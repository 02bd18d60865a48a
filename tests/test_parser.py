"""The argument parser that all commands share refuses a flag that is repeated with other values."""

from pathlib import Path

import pytest

from reproduce import Parser


def parser() -> Parser:
    made = Parser("command", allow_abbrev=False)
    made.add_argument("paper", nargs="?")
    group = made.add_argument_group("a group")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--rows", "--only", nargs="+")
    made.add_argument("--out", type=Path)
    made.add_argument("--file", action="append")
    made.add_argument("--quick", action="store_true")
    return made


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed 1 --seed 2", "--seed is given twice, as 1 and as 2; give it once."),
        ("--seed 0 pham2019 --seed 2", "--seed is given twice, as 0 and as 2; give it once."),
        ("--rows a b --only c", "--only is given twice, as a b and as c; give it once."),
        ("--out=a --out=b", "--out is given twice, as a and as b; give it once."),
    ],
)
def test_a_repeated_flag_is_refused_in_one_sentence(flags, message, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(flags.split())
    assert end.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(message)
    assert len(shown.splitlines()) == 1


def test_equal_values_and_flags_that_collect_may_be_repeated():
    made = parser()
    for seed in (1, 2):  # nothing is kept from one call to the next
        options = made.parse_args(
            f"pham2019 --seed {seed} --seed {seed} --file a --file b --quick --quick".split()
        )
        assert (options.paper, options.seed, options.file) == ("pham2019", seed, ["a", "b"])
        assert {*vars(options)} == {"paper", "seed", "rows", "out", "file", "quick"}
