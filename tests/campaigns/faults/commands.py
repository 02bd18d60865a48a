"""Cases of one command line each: flags and folders that a command must refuse."""

import shlex

from tests.campaigns.faults.world import cases, run

VALUES = (  # group, command, flag, values that it must refuse
    ("A8", "chen2019", "--epochs", ("0", "-3", "1.5", "x", "")),
    ("A8", "chen2019", "--learning-rate", ("-1", "0")),
    ("C3", "chen2019", "--learning-rate", ("nan", "inf")),
    ("B11", "chen2019", "--batch-size", ("0", "-4")),
    ("B11", "chen2019", "--size", ("0", "-5", "1", "1e9")),
    ("B11", "chen2019", "--resize", ("0", "16")),
    ("B11", "chen2019", "--seeds", ("-1", str(2**40), "a", "")),
    ("B11", "chen2019", "--resamples", ("0", "-1", "x")),
    ("B11", "chen2019", "--phantoms", ("0", "-5", "1.5")),
    ("B11", "chen2019", "--backbone", ("nothing",)),
    ("B11", "chen2019", "--no-such-flag", ("1",)),
    ("B11", "asadi2025", "--dropout", ("2", "-1", "nan")),
    ("B11", "pham2019", "--held-out", ("0", "2", "nan")),
    ("B11", "ge2018", "--step", ("0", "-1")),
    ("B11", "doctor", "--seconds", ("nan", "inf", "-1", "x")),
)
RELEASED = "reproduce.rescore pham2019 --released {new} --download"
LINES = {  # name: command line in which {new} is a new folder and {plco} one with data
    "B11 --rows 'no such row'": "reproduce.chen2019 --phantoms 60 --rows 'no such row'",
    "A16 --phantoms beside --data-dir": "reproduce.chen2019 --phantoms 50 --data-dir {plco}",
    "B17 data.phantom sheet --out FOLDER": "data.phantom sheet --out {new}",
}
LINES |= {
    f"B11 data.phantom --size {size} --images {images}": (
        f"data.phantom plco --out {{new}}/out --size={size} --images={images}"
    )
    for size, images in ((0, 60), (128, 0), (-5, 60), (10**9, 60))
}
LINES |= {
    f"B17 --data-dir {path[:20]}": f"reproduce.chen2019 --data-dir {path} --results-dir {{new}}"
    for path in ("/no/such/folder", "/etc/passwd", "x" * 300, "/proc/1")
}
LINES |= {
    f"B17 report --results-dir {path[:12]}": f"reproduce.report --results-dir {path}"
    for path in ("x" * 300, "/etc/passwd", "/no/such")
}
LINES |= {
    f"B13 rescore --base-url {url}": f"{RELEASED} --base-url {url}"
    for url in ("nonsense", "http://", "ftp://x/y", "http://127.0.0.1:9/")
}


def name_of(group: str, command: str, flag: str, value: str) -> str:
    if command == "chen2019":
        return f"{group} {flag} {value!r}"
    return f"{group} {command} {flag} {value}"


@cases(
    {
        name_of(group, command, flag, value): (command, flag, value)
        for group, command, flag, values in VALUES
        for value in values
    }
)
def _(world, command, flag, value):
    # the folders are read only if the flag is accepted
    folders = [] if flag == "--phantoms" else ["--data-dir", "/no/such"]
    return run(f"reproduce.{command}", *folders, f"{flag}={value}").refused(flag)


@cases(LINES)
def _(world, line):
    folders = {"new": world.new(), "plco": world.folder_of("plco")}
    return run(*(word.format(**folders) for word in shlex.split(line)))


@cases("C8 --size 96 --resize 64")
def _(world):
    return run("reproduce.chen2019", "--size", 96, "--resize", 64).refused("--resize")


@cases(
    {
        f"C8 {command} {flag} is named as it was typed": (command, flag, said)
        for command, flag, said in (
            ("mo2019", "--size=1", "--size 1"),
            ("mo2019", "--seeds=x", "give whole numbers from 0"),
            ("chen2019", "--resamples=x", "give a whole number of at least 1"),
        )
    }
)
def _(world, command, flag, said):
    return run(f"reproduce.{command}", flag).refused(said, ("invalid", "--resize", "_seeds"))
