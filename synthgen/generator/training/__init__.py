"""Training of the VQ-GAN and of the latent flow."""
