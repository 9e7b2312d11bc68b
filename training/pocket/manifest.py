"""The last step: `parley.json` over the finished weights, which makes them everybody's default.

Written only when every checkpoint opens as its service opens it; `parley up`, the demo and the
end-to-end tests take weights without it for unfinished.

    python manifest.py [weights/pocket]
"""

import sys
from pathlib import Path

from parley_client.local import checkpoints, weights
from parley_client.local.errors import LocalError

KIND = "pocket"


def main() -> int:
    """Checks, and writes the manifest; the exit status."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else weights.POCKET
    try:
        broken = [part for part in checkpoints.inspect(folder) if part.problem]
        for part in broken:
            print(f"{part.path.relative_to(folder)}: {part.kind}: {part.problem}", file=sys.stderr)
        if broken:
            return 1
        made = weights.label(folder, KIND)
    except LocalError as error:
        print(f"manifest: {error}", file=sys.stderr)
        return 1
    size = sum((folder / name).stat().st_size for name in made.files)
    print(f"{folder / weights.MANIFEST}: {len(made.files)} files, {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
