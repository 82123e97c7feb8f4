"""Where the rooms are put together: supply of cubes, exact mix, judging, the pretraining loop, its pages."""
