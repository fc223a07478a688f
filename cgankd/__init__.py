"""Distil a strong network into a small one through curated samples of a conditional GAN."""
