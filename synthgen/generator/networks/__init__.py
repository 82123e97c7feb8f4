"""Networks of the VQ-GAN and of the flow."""
