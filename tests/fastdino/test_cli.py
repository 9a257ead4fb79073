from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from fastdino.cli import COMMANDS, boolean, main, parse
from fastdino.config import CropsConfig, TrainConfig

# facebookresearch/dino's main_dino.py, get_args_parser(): the 31 flags and their defaults.
ORIGINAL_DEFAULTS = {
    "arch": "vit_small",
    "patch_size": 16,
    "out_dim": 65536,
    "norm_last_layer": True,
    "momentum_teacher": 0.996,
    "use_bn_in_head": False,
    "warmup_teacher_temp": 0.04,
    "teacher_temp": 0.04,
    "warmup_teacher_temp_epochs": 0,
    "use_fp16": True,
    "weight_decay": 0.04,
    "weight_decay_end": 0.4,
    "clip_grad": 3.0,
    "batch_size_per_gpu": 64,
    "epochs": 100,
    "freeze_last_layer": 1,
    "lr": 0.0005,
    "warmup_epochs": 10,
    "min_lr": 1e-6,
    "optimizer": "adamw",
    "drop_path_rate": 0.1,
    "global_crops_scale": (0.4, 1.0),
    "local_crops_number": 8,
    "local_crops_scale": (0.05, 0.4),
    "data_path": "/path/to/imagenet/train/",
    "output_dir": ".",
    "saveckp_freq": 20,
    "seed": 0,
    "num_workers": 10,
    "dist_url": "env://",
    "local_rank": 0,
}


def test_the_originals_flags_and_defaults() -> None:
    _, config = parse(["train"])
    assert len(ORIGINAL_DEFAULTS) == 31
    assert {name: getattr(config, name) for name in ORIGINAL_DEFAULTS} == ORIGINAL_DEFAULTS
    assert config == TrainConfig()


@pytest.mark.parametrize("dash", ["-", "_"])
def test_dashes_and_underscores(dash: str) -> None:
    flags = [
        "--batch_size_per_gpu",
        "8",
        "--global_crops_scale",
        "0.14",
        "1",
        "--use_fp16=no",
        "--local_rank=3",
    ]
    arguments = [flag.replace("_", dash) if flag.startswith("--") else flag for flag in flags]
    _, config = parse(["train", *arguments])
    assert (config.batch_size_per_gpu, config.global_crops_scale, config.use_fp16, config.local_rank) == (
        8,
        (0.14, 1.0),
        False,
        3,
    )


def test_every_flag_round_trips() -> None:
    values = dataclasses.asdict(TrainConfig(arch="resnet18", epochs=3, norm_last_layer=False, data_path="x y"))
    arguments = ["train"]
    for name, value in values.items():
        arguments += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    assert parse(arguments)[1] == TrainConfig(**values)


@pytest.mark.parametrize("text", ["true", "True", "on", "yes", "1"])
def test_true(text: str) -> None:
    assert boolean(text) is True


@pytest.mark.parametrize("text", ["false", "OFF", "no", "0"])
def test_false(text: str) -> None:
    assert boolean(text) is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--local-crop-number", "3"], "--local_crop_number, did you mean --local_crops_number?"),
        (["train", "--epochs", "many"], "invalid int value: 'many'"),
        (["train", "--use_fp16", "maybe"], "neither true nor false"),
        (["train", "--optimizer", "adam"], "invalid choice: 'adam'"),
        (["trian"], "invalid choice: 'trian'"),
        (["check"], "required: DIR"),
        (["attention", "a.jpg", "--draw", "all"], "invalid choice: 'all'"),
        (["crops", "--seed", "1"], "required: IMAGE"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_arguments_end_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_bad_input_ends_in_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "--data_path", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastdino: ")
    assert str(tmp_path / "none") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_needs_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys; from fastdino.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'PIL', 'rich', 'timm'} & sys.modules.keys(), 'heavy import'"
    )
    process = subprocess.run([sys.executable, "-c", program, *command, "--help"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert "usage: fastdino" in process.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_sentence(name: str) -> None:
    for field in dataclasses.fields(COMMANDS[name].settings):
        assert field.metadata["help"].rstrip(")").endswith((".", "(fastdino")), field.name


def test_a_switch_takes_no_value_and_a_positional_may_stand_anywhere() -> None:
    for arguments in (["--json", "photos"], ["photos", "--json"]):
        _, config = parse(["check", *arguments, "--local-size", "32"])
        assert (config.data_path, config.json, config.local_size) == ("photos", True, 32)
    assert parse(["check", "photos"])[1].json is False


def test_the_crops_have_the_flags_of_training() -> None:
    of_crops, of_training = CropsConfig(), TrainConfig()
    for field in dataclasses.fields(CropsConfig):
        assert getattr(of_crops, field.name) == getattr(of_training, field.name)


def test_a_failed_check_ends_with_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8")
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("fastdino 0.")


@pytest.mark.parametrize(
    ("arguments", "inputs"),
    [([], ()), (["a.jpg", "b.jpg"], ("a.jpg", "b.jpg")), (["--threshold", "0.5", "a.mp4", "--head=1"], ("a.mp4",))],
)
def test_any_number_of_positionals(arguments: list[str], inputs: tuple[str, ...]) -> None:
    assert parse(["attention", *arguments])[1].inputs == inputs
