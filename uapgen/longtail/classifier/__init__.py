"""Classifiers of labelled images: in the loop of a GAN, or as annotators of its samples."""
