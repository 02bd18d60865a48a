"""The command line made from a Config: presets, flags, origins, and errors of one sentence."""

from dataclasses import dataclass
from typing import Literal

import pytest

from reproduce import RunError
from reproduce.engine import options as engine_options


@dataclass(frozen=True)
class Config:
    epochs: int = 9  # §3
    batch_size: int = 32  # §3
    rate: float = 1e-4  # unstated; ours
    flip: bool = True  # §4
    finetune: int = 2  # ours
    size: int = 224  # §2
    resize: int = 256  # §2
    batch_size: int = 32  # §4
    form: Literal["exact", "naive"] = "exact"  # eq. 2


@dataclass(frozen=True)
class Inherited(Config):
    member: str = "a"  # §5


@dataclass(frozen=True)
class WithoutOrigin:
    epochs: int = 9  # §3
    rate: float = 1e-4


def parsed(monkeypatch, *words: str):
    monkeypatch.setattr("sys.argv", ["chen2019", *words])
    return engine_options.parse(Config, {"epochs": 2}, "A paper.", ["plco", "chexpert"])


def test_no_data_means_the_demo_and_data_the_paper(monkeypatch):
    config, options = parsed(monkeypatch)
    assert (options.preset, config.epochs, options.dataset) == ("demo", 2, "plco")
    config, options = parsed(monkeypatch, "--data-dir", "somewhere")
    assert (options.preset, config.epochs) == ("paper", 9)
    assert parsed(monkeypatch, "--data-dir", "x", "--preset", "demo")[0].epochs == 2


def test_every_field_is_a_flag_and_beats_the_preset(monkeypatch):
    words = "--epochs 3 --no-flip --rate 0.5 --seeds 2,0,2 --form naive"
    config, options = parsed(monkeypatch, *words.split())
    assert config == Config(epochs=3, rate=0.5, flip=False, form="naive")
    assert options.seeds == (2, 0)


def test_several_devices_a_row_are_checked_before_anything_is_read(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(engine_options.backend, "check_choice", lambda: None)
    assert parsed(monkeypatch, "--devices-per-row", "4")[1].devices_per_row == 4
    with pytest.raises(RunError, match="Batches of 32 images cannot be divided among 3 devices"):
        parsed(monkeypatch, "--devices-per-row", "3")


def test_resize_keeps_its_ratio_to_a_size_given_alone(monkeypatch):
    assert parsed(monkeypatch, "--size", "112")[0].resize == 128
    assert parsed(monkeypatch, "--size", "112", "--resize", "200")[0].resize == 200


@pytest.mark.parametrize(
    "words", [["--epoch", "3"], ["--rates", "1"], ["--resamples", "0"], ["--form", "other"]]
)
def test_unknown_flags_and_senseless_values_fail(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as end:
        parsed(monkeypatch, *words)
    assert end.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_help_shows_each_setting_with_its_origin(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "9 [2]: §3" in text
    assert "0.0001: unstated; ours" in text


def test_inherited_settings_are_flags_too(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--member", "b", "--epochs", "4"])
    config, _ = engine_options.parse(Inherited, {}, "A paper.", ["plco"])
    assert config == Inherited(epochs=2 + 2, member="b")


def test_a_setting_without_an_origin_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x"])
    with pytest.raises(TypeError, match=r"Config.rate needs a comment .* its origin"):
        engine_options.parse(WithoutOrigin, {}, "A paper.", ["plco"])


@pytest.mark.parametrize("flag", ["address", "gpus-per-row", "cpus-per-row"])
def test_flags_of_a_cluster_need_one(monkeypatch, flag):
    with pytest.raises(RunError, match=f"--{flag} .* add --on ray"):
        parsed(monkeypatch, f"--{flag}", "1")
    parsed(monkeypatch, f"--{flag}", "1", "--only-train", "abc")  # a task of a cluster


def test_every_option_has_a_flag_and_its_default(monkeypatch):
    _, options = parsed(monkeypatch)
    assert options == engine_options.Options(dataset="plco", preset="demo")


def test_errors_of_the_user_are_one_sentence(capsys):
    with pytest.raises(SystemExit) as end, engine_options.one_sentence():
        raise RunError("Do this instead.")
    assert (end.value.code, capsys.readouterr().err) == (2, "\nDo this instead.\n")
    with pytest.raises(SystemExit) as end, engine_options.one_sentence():
        raise KeyboardInterrupt
    assert end.value.code == 130
    with pytest.raises(ZeroDivisionError), engine_options.one_sentence():
        _ = 1 / 0  # a fault of ours is no sentence of theirs
