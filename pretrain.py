"""Pretrain a backbone on real and synthetic cubes: `accelerate launch pretrain.py --synthetic-ratio 0.5`.

The loop is `synthgen.integration.pretrain`, which is in the installed package as well
(`accelerate launch -m synthgen.integration.pretrain`). `python pretrain.py --help` lists every option.
"""

from synthgen.integration.pretrain import main

if __name__ == "__main__":
    main()
