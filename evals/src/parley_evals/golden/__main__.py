"""`python -m parley_evals.golden PATH`.

Prints the parity table and exits with 1 when a check fails.
"""

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from parley_evals.golden.case import Check
from parley_evals.golden.runner import discover, run


def table(checks: list[Check]) -> Table:
    """One row a quantity; failed rows are marked."""
    rows = Table(
        "case", "quantity", "max error", "tolerance", "pass", title="Parity with the reference"
    )
    for check in checks:
        verdict = "yes" if check.passed else "[bold red]NO[/]"
        tolerance = "exact" if check.tolerance == 0 else f"{check.tolerance:.1e}"
        named = map(_shown, (check.case, check.quantity))
        rows.add_row(*named, f"{check.error:.1e}", tolerance, verdict)
    return rows


def _shown(text: str) -> str:
    """A name from disk as it stands: no markup, and bytes that are no text told as such."""
    return escape(text.encode("utf-8", "replace").decode())


def main(arguments: list[str]) -> int:
    """Runs every case below the given folders."""
    if not arguments:
        print("usage: python -m parley_evals.golden PATH [PATH ...]", file=sys.stderr)
        return 2
    # The models are small: more threads only wait for each other, for minutes on a busy machine.
    torch.set_num_threads(1)
    checks: list[Check] = []
    for argument in arguments:
        try:
            cases = discover(Path(argument))
        except OSError as error:
            print(f"golden: {error}", file=sys.stderr)
            return 2
        for case in cases:
            checks.extend(run(case))
    failed = sum(not check.passed for check in checks)
    Console(width=None if sys.stdout.isatty() else 150).print(table(checks))
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
