"""The benchmark of GANs on long-tailed data."""
