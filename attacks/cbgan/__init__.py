"""cbgan, the flagship: GAN, perturbation generator, refinement."""
