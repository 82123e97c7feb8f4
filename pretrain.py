"""Pretrain a backbone on real and synthetic cubes: `python pretrain.py --synthetic-ratio 0.5`.

The loop is `synthgen.integration.pretrain`, which is in the installed package as well (`synthgen pretrain`).
`--processes N` starts several, `--help` lists every option. `accelerate launch pretrain.py` runs it, too.
"""

import sys

from synthgen.errors import one_line_errors

if __name__ == "__main__":
    with one_line_errors("--debug" in sys.argv):
        from synthgen.integration.pretrain import main

        main()
