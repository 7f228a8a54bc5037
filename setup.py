"""Where the folders go; everything else is in pyproject.toml.

`attacks/` and `victims/` lie at the top level of the repository and install as
`uapgen.attacks` and `uapgen.victims`, so the wheel owns one top-level name.
"""

from setuptools import setup

setup(
    packages=[
        "uapgen",
        "uapgen.attacks",
        "uapgen.attacks.cbgan",
        "uapgen.attacks.core",
        "uapgen.cli",
        "uapgen.cli.gan",
        "uapgen.compare",
        "uapgen.defences",
        "uapgen.distributed",
        "uapgen.evaluation",
        "uapgen.experiments",
        "uapgen.gan",
        "uapgen.gate",
        "uapgen.hardening",
        "uapgen.images",
        "uapgen.interop",
        "uapgen.longtail",
        "uapgen.longtail.bench",
        "uapgen.longtail.classifier",
        "uapgen.longtail.gold",
        "uapgen.longtail.metrics",
        "uapgen.longtail.synthetic",
        "uapgen.perturbation",
        "uapgen.proxies",
        "uapgen.report",
        "uapgen.schema",
        "uapgen.testing",
        "uapgen.victims",
    ],
    package_dir={"uapgen": "uapgen", "uapgen.attacks": "attacks", "uapgen.victims": "victims"},
    package_data={
        "uapgen": ["py.typed"],
        "uapgen.longtail.bench": ["presets/*.toml"],
        "uapgen.longtail.gold": ["presets/*.toml"],
        "uapgen.longtail.synthetic": ["presets/*.toml"],
        "uapgen.report": ["templates/*"],
    },
)
