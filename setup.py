"""Where the folders go; everything else is in pyproject.toml.

`attacks/` and `victims/` lie at the top level of the repository and install as
`uapgen.attacks` and `uapgen.victims`, so the wheel owns one top-level name.
"""

from setuptools import setup

setup(
    packages=[
        "uapgen",
        "uapgen.attacks",
        "uapgen.cli",
        "uapgen.cli.gan",
        "uapgen.compare",
        "uapgen.defences",
        "uapgen.evaluation",
        "uapgen.gan",
        "uapgen.hardening",
        "uapgen.interop",
        "uapgen.longtail",
        "uapgen.longtail.gold",
        "uapgen.longtail.metrics",
        "uapgen.longtail.synthetic",
        "uapgen.proxies",
        "uapgen.report",
        "uapgen.testing",
        "uapgen.victims",
    ],
    package_dir={"uapgen": "uapgen", "uapgen.attacks": "attacks", "uapgen.victims": "victims"},
    package_data={
        "uapgen": ["py.typed"],
        "uapgen.longtail": ["presets/*.toml"],
        "uapgen.longtail.gold": ["presets/*.toml"],
        "uapgen.longtail.synthetic": ["presets/*.toml"],
        "uapgen.report": ["templates/*"],
    },
)
