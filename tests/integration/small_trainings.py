"""Settings of trainings that take a second."""

STEPS = 4
SMALL = {
    "steps": STEPS, "checkpoint_every": 1, "log_every": 1, "batch_size": 4, "validate_every": 100, "precision": "fp32",
}  # fmt: skip
CODER = {
    "codes": 8, "latent_channels": 4, "encoder_channels": 8, "decoder_channels": 8, "max_channels": 8,
    "quantiser_start": 0, "adversarial_start": 0, "warmup": 1,
}  # fmt: skip
PRETRAIN = {k: v for k, v in SMALL.items() if k != "validate_every"} | {
    "synthetic_ratio": "0", "backbone": "test_resnet", "monitor_every": 0,
}  # fmt: skip
FLOW = {"channels": 8, "multipliers": (1, 2), "attention_heads": 2, "validation_cubes": 1}
