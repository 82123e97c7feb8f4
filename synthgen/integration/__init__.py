"""Where the rooms are put together: pool, mix, the pretraining loop, the demo."""
