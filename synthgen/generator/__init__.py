"""The generator: vector-quantised autoencoder, latent flow, samplers, sample stream and the two trainings."""
