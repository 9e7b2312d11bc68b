"""See `parley_vocoder.triton.host`."""

import sys

from parley_vocoder.triton.host import main

main(sys.argv[1:])
