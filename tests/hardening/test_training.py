"""Universal adversarial training: the two steps in closed form, then what a run keeps, then the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.cli.test_craft import run
from tests.conftest import ROOT, gratings
from uapgen.errors import UapgenError, UsageError
from uapgen.evaluation import Rate
from uapgen.hardening import FILE, Settings, harden, measure, reload_spec, render, save_weights
from uapgen.hardening.attack import split, targets
from uapgen.hardening.training import alternate, trainable_copy
from uapgen.images.sets import ImageSet, open_images
from uapgen.perturbation import Perturbation
from uapgen.runfolder import load_state, save_state
from uapgen.victims import Ensemble, Preprocessing, Victim, load_victim
from uapgen.victims.trained import KIND as CLASSIFIER

PLAIN = Preprocessing(input_size=(3, 2, 2), mean=(0.0,) * 3, std=(1.0,) * 3, crop_pct=1.0)
MODULE = """
import torch
from tests.conftest import TINY, tiny_net
from uapgen.victims import Victim

def build():
    torch.manual_seed(0)
    net = tiny_net(width=4).train()
    with torch.no_grad():
        net(torch.rand(64, 3, 32, 32))  # batch-norm statistics of their own
    return net.eval(), TINY

def finished():
    return Victim(build()[0], name="tiny", preprocessing=TINY, device="cpu")
"""


def write(folder: Path, pictures: Tensor, labels: Tensor | None = None) -> Path:
    for number, picture in enumerate(pictures):
        place = folder / str(int(labels[number])) if labels is not None else folder
        place.mkdir(parents=True, exist_ok=True)
        pixels = (picture * 255).round().byte().movedim(0, -1).numpy()
        Image.fromarray(pixels).save(place / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "gratings", *gratings(100, seed=5))


@pytest.fixture
def images(data: Path, tiny_victim: Victim) -> ImageSet:
    return open_images(data, tiny_victim.transform, num_classes=10)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hard_victim.py").write_text(MODULE)
    write(tmp_path / "images", gratings(20, seed=6)[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def linear_victim() -> Victim:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12], [0.0] * 12]) / 10)
    return Victim(net, name="linear", preprocessing=PLAIN, device="cpu", precision="fp32")


def test_the_two_steps_of_a_linear_model() -> None:
    """Two classes with weights w and 0, all images of class 0: the loss grows against the sign of w, whatever x is."""
    student = trainable_copy(linear_victim())
    w = next(student.module.parameters()).detach()[0].clone()
    x = 0.4 + 0.2 * torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(student.module.parameters(), lr=0.5)
    settings = Settings(eps=0.05, steps=1, delta_step=0.03)
    delta, _ = alternate(student, optimizer, x, torch.zeros(5, dtype=torch.int64), torch.zeros(1, 3, 2, 2), settings)
    assert torch.allclose(delta.flatten(), -0.03 * w.sign())
    perturbed = (x + delta).flatten(1)
    pull = 1 - torch.sigmoid(perturbed @ w)  # dCE/dlogit of class 0 is -(1 - p)
    expected = w + 0.5 * (pull[:, None] * perturbed).mean(0)
    assert torch.allclose(next(student.module.parameters()).detach()[0], expected, atol=1e-6)
    delta, _ = alternate(student, optimizer, x, torch.zeros(5, dtype=torch.int64), delta, settings)
    assert delta.abs().max() == pytest.approx(0.05)  # two steps of 0.03, projected
    ones = torch.ones(5, dtype=torch.int64)
    assert alternate(student, optimizer, x, ones, torch.zeros(1, 3, 2, 2), Settings(eps=0.05, steps=1))[
        0
    ].abs().unique() == pytest.approx(0.05)  # the step is eps unless told otherwise


def test_labels_are_taken_where_they_are_known(tiny_victim: Victim) -> None:
    x, _ = gratings(4, seed=9)
    own = tiny_victim(x).argmax(1)
    labels = torch.tensor([-1, 7, -1, 2])
    assert targets(tiny_victim, x, labels).tolist() == [own[0], 7, own[2], 2]


def test_the_copy_trains_and_the_original_does_not(tiny_victim: Victim, images: ImageSet, tmp_path: Path) -> None:
    before = tiny_victim.weights_sha256
    state = {name: tensor.clone() for name, tensor in tiny_victim.module.state_dict().items()}
    done = harden(tiny_victim, images, Settings(eps=10 / 255, steps=2, batch=8), folder=tmp_path / "run", workers=0)
    assert all(torch.equal(state[name], tensor) for name, tensor in tiny_victim.module.state_dict().items())
    assert not any(p.requires_grad for p in tiny_victim.module.parameters())
    assert tiny_victim.weights_sha256 == before != done.victim.weights_sha256
    assert not any(p.requires_grad for p in done.victim.module.parameters())
    assert (len(done.trained_on), done.labelled, len(done.held_out)) == (80, 80, 20)
    trained = done.victim.module.state_dict()
    assert all(torch.equal(state[name], trained[name]) for name in state if "running" in name)


def test_batch_norm_moves_when_asked(tiny_victim: Victim, images: ImageSet, tmp_path: Path) -> None:
    settings = Settings(eps=10 / 255, steps=1, batch=8, update_batch_norm=True)
    done = harden(tiny_victim, images, settings, folder=tmp_path / "run", workers=0)
    before, after = tiny_victim.module.state_dict(), done.victim.module.state_dict()
    assert not torch.equal(before["1.running_mean"], after["1.running_mean"])


def test_what_cannot_be_trained(tiny_victim: Victim) -> None:
    with pytest.raises(UsageError, match="no weights to train"):
        trainable_copy(Ensemble([tiny_victim, tiny_victim]))


def test_split_is_apart_and_never_empty(images: ImageSet) -> None:
    train, held = split(images, 0.3, seed=1)
    assert (len(train), len(held)) == (70, 30)
    assert sorted(train.names + held.names) == images.names
    label_of = dict(zip(images.names, images.labels, strict=True))
    assert [label_of[name] for name in held.names + train.names] == held.labels + train.labels
    assert [len(split(images, share, 0)[1]) for share in (1e-6, 0.999999)] == [1, 99]


@pytest.mark.parametrize("stop_at", [1, 3, 6])
def test_an_interrupted_run_ends_in_the_same_bytes(
    tiny_victim: Victim, images: ImageSet, tmp_path: Path, stop_at: int
) -> None:
    settings = Settings(eps=8 / 255, steps=7, batch=30, lr=0.01)  # an epoch ends within a batch

    def stop(done: int, _: dict[str, float]) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    common: dict[str, Any] = {"workers": 0, "save_every": 2}
    whole = harden(tiny_victim, images, settings, folder=tmp_path / "whole", **common)
    with pytest.raises(KeyboardInterrupt):
        harden(tiny_victim, images, settings, folder=tmp_path / "parts", callback=stop, **common)
    parts = harden(tiny_victim, images, settings, folder=tmp_path / "parts", **common)
    for name in ("training.safetensors", "stats.jsonl", "options.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    for number, done in enumerate((whole, parts)):
        save_weights(tmp_path / f"{number}.safetensors", done, tiny_victim, settings)
        done.delta.save(tmp_path / f"delta{number}.safetensors")
    for name in ("{}.safetensors", "delta{}.safetensors"):
        assert (tmp_path / name.format(0)).read_bytes() == (tmp_path / name.format(1)).read_bytes()


def test_more_steps_go_on_and_fewer_are_refused(tiny_victim: Victim, images: ImageSet, tmp_path: Path) -> None:
    def go(steps: int, folder: str, **more: Any) -> str:
        settings = Settings(eps=8 / 255, steps=steps, batch=16, **more)
        return harden(tiny_victim, images, settings, folder=tmp_path / folder, workers=0).victim.weights_sha256

    go(2, "run")
    assert go(4, "run") == go(4, "other")
    with pytest.raises(UsageError, match="4 steps behind it"):
        go(3, "run")
    with pytest.raises(UsageError, match="lr = "):
        go(4, "run", lr=0.1)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    tiny_victim: Victim, images: ImageSet, tmp_path: Path
) -> None:
    settings = Settings(eps=8 / 255, steps=40, batch=16, lr=1e12)
    with pytest.raises(UapgenError, match=r"last good state, of step \d+.* --lr") as error:
        harden(tiny_victim, images, settings, folder=tmp_path / "run", workers=0, save_every=1)
    tensors, meta = load_state(tmp_path / "run" / "training.safetensors")
    assert f"of step {meta['step']}," in str(error.value)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    lines = (tmp_path / "run" / "stats.jsonl").read_text().splitlines() if meta["step"] else []
    assert len(lines) == meta["step"]


def test_hardening_moves_a_classifier_to_what_delta_cannot_reach(tmp_path: Path) -> None:
    """Left half: +-80 levels by class. Right half: +-5, inside the ball of 13, and all that the original looks at."""
    labels = torch.arange(80) % 2
    side = (2.0 * labels - 1).view(-1, 1, 1, 1)
    pictures = 128 + 10 * torch.randn(80, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures[..., :4] += 80 * side
    pictures[..., 4:] = 128 + 5 * side
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    right = torch.zeros(3, 8, 8)
    right[..., 4:] = 1
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-right, right]).flatten(1))
        net[1].bias.zero_()
    middle = Preprocessing(input_size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    victim = Victim(net, name="linear", preprocessing=middle, device="cpu", precision="fp32")
    images = open_images(
        write(tmp_path / "data", pictures.clamp(0, 255) / 255, labels), victim.transform, num_classes=2
    )
    settings = Settings(eps=13 / 255, steps=60, batch=16, lr=0.01, held_out=0.5)
    done = harden(victim, images, settings, folder=tmp_path / "run", workers=0)
    found = measure(victim, done, settings, attack_steps=10, workers=0)
    before, after = found["before"], found["after"]
    assert before["agreement"].value == before["accuracy"].value == 1
    assert 0.3 < before["fresh"].value < 0.7  # one delta takes all images to one class
    assert before["standing"].count == 40 - before["fresh"].count
    assert after["agreement"].value == after["accuracy"].value == 1
    assert (after["fooling_rate"].count, after["fresh"].count, after["standing"].count) == (0, 0, 40)


def test_the_weights_load_again(place: Path) -> None:
    spec = "hard_victim:build"
    victim = load_victim(spec, device="cpu")
    images = open_images("images", victim.transform, num_classes=10)
    settings = Settings(eps=10 / 255, steps=1, batch=4)
    done = harden(victim, images, settings, folder="run", workers=0)
    save_weights(place / FILE, done, victim, settings)
    again = load_victim(reload_spec(spec), weights=place / FILE, device="cpu")
    assert again.weights_sha256 == done.victim.weights_sha256
    other = load_victim("timm/resnet18:random,mean=0.1,input_size=64", device="cpu", check=False)
    done = harden(other, open_images("images", other.transform), settings, folder="other", workers=0)
    save_weights(place / "other.safetensors", done, other, settings)
    again = load_victim("timm/resnet18", weights=place / "other.safetensors", device="cpu", check=False)
    assert again.weights_sha256 == done.victim.weights_sha256
    assert again.preprocessing == other.preprocessing  # from the file: the name alone says 224 pixels


@pytest.mark.parametrize(
    ("spec", "arch", "expected"),
    [
        ("embedded/efficientnet_lite0", None, "timm/tf_efficientnet_lite0"),
        ("timm/resnet18.tv_in1k", None, "timm/resnet18.tv_in1k"),
        ("resnet18:random", None, "resnet18"),
        ("tv/vgg11:random,mean=0.5", None, "tv/vgg11:mean=0.5"),
        ("file:some.safetensors", "timm/resnet18", "timm/resnet18"),
        ("module:build", None, "module:build"),
    ],
)
def test_how_the_result_is_named(spec: str, arch: str | None, expected: str) -> None:
    assert reload_spec(spec, arch) == expected


@pytest.mark.parametrize("spec", ["local-dir:somewhere", "hf-hub:a/b", "file:net.onnx"])
def test_what_could_not_be_loaded_again(spec: str) -> None:
    with pytest.raises(UsageError, match="--weights"):
        reload_spec(spec)


def test_a_classifier_of_ours_is_its_own_architecture(tmp_path: Path) -> None:
    path = tmp_path / "classifier.safetensors"
    save_state(path, {"w": torch.zeros(1)}, {"kind": CLASSIFIER})
    with pytest.raises(UsageError, match="takes no other weights"):
        reload_spec(f"file:{path}")
    assert reload_spec(f"file:{path}", "timm/resnet18") == "timm/resnet18"


def test_the_command(place: Path, capsys: pytest.CaptureFixture) -> None:
    base = [
        sys.executable,
        "-m",
        "uapgen",
        "harden",
        "--data",
        "images",
        "--steps",
        "3",
        "--batch-size",
        "4",
        "--attack-steps",
        "2",
    ]
    command = [*base, "--device", "cpu", "--workers", "0", "--threads", "1"]
    one = [*command, "--victim", "hard_victim:build", "-o", "run"]
    done = subprocess.run(one, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "self-distillation" in done.stdout
    assert done.stdout.splitlines()[-1] == "--victim hard_victim:build --weights run/hardened.safetensors"
    result = json.loads((place / "run" / "result.json").read_text())
    assert result["before"]["agreement"] == {
        "count": 4,
        "n": 4,
        "rate": 1.0,
        "ci95": result["before"]["agreement"]["ci95"],
    }
    assert result["after"]["accuracy"] is None
    assert Perturbation.load("run/delta.safetensors").data_class == "driven"
    weights = (place / "run" / FILE).read_bytes()
    assert run(capsys, *one[3:])[:2] == (0, done.stdout)
    assert (place / "run" / FILE).read_bytes() == weights
    assert (place / "run" / "stats.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--eps", "0"], 2, "outside (0, 255]"),
        (["--steps", "0"], 2, "steps 0"),
        (["--lr", "nan"], 2, "lr nan"),
        (["--held-out", "1"], 2, "held_out 1.0"),
        (["--delta-step", "0"], 2, "outside (0, 255]"),
        (["--batch-size", "0"], 2, "batch 0"),
        (["--data", "nowhere"], 2, "not there"),
        (["--data", "empty"], 2, "no image"),
        (["--data", "one"], 2, "1 image"),
        (["--labels", "missing.csv"], 2, "missing.csv"),
        (["--labels", "wrong.csv"], 2, "names none of the 20 images"),
        (["--victim", "file:net.onnx"], 2, "--weights"),
        (["--victim", "file:net.safetensors"], 2, "--arch"),
        (["--weights", "missing.safetensors"], 3, "missing.safetensors"),
        (["-o", "images/000.png"], 3, "cannot write"),
        (["--lr", "1e12", "--steps", "30"], 3, "last good state"),
    ],
)
def test_errors(place: Path, capsys: pytest.CaptureFixture, args: list[str], code: int, message: str) -> None:
    (place / "empty").mkdir()
    write(place / "one", gratings(1, seed=0)[0])
    (place / "wrong.csv").write_text("file,label\nother.png,1\n")
    common = ["--victim", "hard_victim:build", "--data", "images", "--workers", "0", "--device", "cpu", "-o", "run"]
    found, out, err = run(capsys, "harden", *common, *args)
    assert (found, out) == (code, "")
    assert message in err


def test_a_finished_victim_and_its_weights(place: Path, capsys: pytest.CaptureFixture) -> None:
    args = [
        "--victim",
        "hard_victim:finished",
        "--data",
        "images",
        "--steps",
        "1",
        "--workers",
        "0",
        "-o",
        "run",
        "--attack-steps",
        "0",
    ]
    code, out, err = run(capsys, "harden", *args, "--batch-size", "4")
    assert code == 0, err
    assert "load run/hardened.safetensors inside it" in out


def test_a_victim_that_forgot_is_not_called_robust() -> None:
    full, low = Rate(40, 40), Rate(8, 40)
    rates = {
        "agreement": full,
        "accuracy": None,
        "fooling_rate": low,
        "fresh": None,
        "standing": None,
        "noise_floor": low,
    }
    measured = {"before": rates, "after": {**rates, "agreement": low}, "n": 40, "notes": []}
    assert "has forgotten much" in render(measured)
    assert "has forgotten much" not in render({**measured, "after": rates})


@pytest.mark.parametrize(("verb", "words"), [("harden", "hardened.safetensors"), ("detect", "--reference")])
def test_help_has_an_example(capsys: pytest.CaptureFixture, verb: str, words: str) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert (code, f"uapgen {verb} " in out, words in out) == (0, True, True)
