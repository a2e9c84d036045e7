"""The program that comes with the package, and its commands as functions."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import CLASSES, program

import zeg


def test_the_program_and_the_package_have_one_version():
    assert program("--version").stdout.split() == ["zeg", zeg.__version__]
    assert metadata.version("zeg") == zeg.__version__
    script = Path(sys.executable).with_name("zeg")
    assert script.exists() and shutil.which(str(script))
    done = subprocess.run([script, "models", "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["command"] == "models"


def test_exit_codes_are_those_of_the_program(tmp_path):
    assert program("info", tmp_path / "missing").returncode == 1
    wrong = program("info", "--no-such-option")
    assert wrong.returncode == 2
    assert "--no-such-option" in wrong.stderr


def test_a_closed_pipe_is_no_error():
    command = f"'{sys.executable}' -m zeg segment --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[-2] == "0", done
    assert "Traceback" not in done.stderr


def test_info_returns_the_json_of_the_program(tmp_path):
    config = tmp_path / "experiment.toml"
    config.write_text(experiment())
    found = zeg.info(config)
    printed = program("info", config, "--json")
    assert found == json.loads(printed.stdout)
    with pytest.raises(zeg.CommandError) as caught:
        zeg.info(tmp_path / "missing.toml")
    assert caught.value.exit_code == 1
    assert caught.value.document["error"]["message"]
    with pytest.raises(zeg.CommandError) as caught:
        zeg.info(config, sett="a=1")
    assert caught.value.exit_code == 2


def test_files_are_segmented_with_a_journal(images, tmp_path):
    out = tmp_path / "out"
    options = {"model": "mini", "classes": CLASSES, "output": out, "write": ["labels", "coco"]}
    document = zeg.segment_files(images[:3], **options)
    assert [entry["image"] for entry in document["images"]] == [path.name for path in images[:3]]
    with pytest.raises(zeg.CommandError, match="exists") as caught:
        zeg.segment_files(images[:3], **options)
    assert "resume" in caught.value.hint
    assert zeg.segment_files(images[:3], resume=True, **options) == document
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:60])
    with pytest.raises(zeg.CommandError) as caught:
        zeg.segment_files([broken], model="mini", classes=CLASSES, output=tmp_path / "other")
    assert len(caught.value.document["failed"]) == 1


def experiment():
    """Returns the smallest training on the mini world."""
    root = Path(__file__).resolve().parents[3]
    return (root / "configs/mini-world/zegclip-inductive.toml").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    config = folder / "experiment.toml"
    config.write_text(experiment())
    steps = []
    document = zeg.train(
        config,
        weights="mini",
        output=folder / "run",
        on_step=steps.append,
        set={"training.steps": 3, "training.batch": 2},
    )
    return folder, document, steps


def test_training_tells_its_steps(trained):
    folder, document, steps = trained
    assert document["command"] == "train" and document["finished"]
    assert [step["step"] for step in steps] == [0, 1, 2]
    assert all(step["loss"] > 0 for step in steps)
    assert Path(document["model"]).is_file()


def test_an_exception_of_the_callback_stops_the_training(trained):
    folder, _, _ = trained

    def stop(step):
        raise RuntimeError(f"enough after step {step['step']}")

    options = {"weights": "mini", "output": folder / "stopped", "set": {"training.steps": 3, "training.batch": 2}}
    with pytest.raises(RuntimeError, match="enough after step 0"):
        zeg.train(folder / "experiment.toml", on_step=stop, **options)
    steps = []
    document = zeg.train(folder / "experiment.toml", on_step=steps.append, resume=True, **options)
    assert document["finished"]
    assert [step["step"] for step in steps] == [1, 2]


def test_evaluation_returns_the_json_of_the_program(trained):
    folder, document, _ = trained
    options = ["--dataset", "mini-world", "--split", "val", "--limit", "3"]
    found = zeg.evaluate(document["model"], dataset="mini-world", split="val", limit=3)
    printed = json.loads(program("eval", document["model"], *options, "--json").stdout)
    assert found == printed
    assert 0 <= found["p_acc"] <= 100


def test_export_writes_the_file_of_the_program(tmp_path):
    document = zeg.export("mini", classes=CLASSES, output=tmp_path / "package.onnx", size=64)
    assert document["command"] == "export" and document["classes"] == CLASSES.split(",")
    done = program("export", "mini", "--classes", CLASSES, "--size", 64, "-o", tmp_path / "program.onnx")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "package.onnx").read_bytes()
    assert len(written) > 100_000
    assert written == (tmp_path / "program.onnx").read_bytes()


def test_export_refuses_what_the_program_refuses(tmp_path):
    target = tmp_path / "taken.onnx"
    target.write_bytes(b"kept")
    with pytest.raises(zeg.CommandError) as caught:
        zeg.export("mini", output=target)
    assert caught.value.hint and target.read_bytes() == b"kept"
    with pytest.raises(zeg.CommandError) as caught:
        zeg.export("mini", output=tmp_path / "other.onnx", size=64, dynamic_size=True)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "other.onnx").exists()
