"""``python -m pnas_fast.export``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pnas_fast.cli.commands import one_line
from pnas_fast.cli.streams import OutputClosed, run_command
from pnas_fast.export.cli import parse
from pnas_fast.export.errors import ExportError, require

PROGRAM = "python -m pnas_fast.export"


@run_command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 0 done, 2 bad input or a failed check."""
    options = parse(arguments)
    try:
        if options.study is not None:
            require("optuna", extra="pip install 'pnas_fast[optuna]'")
            from pnas_fast.export.study import export_study

            print(export_study(options.run, options.study, options.study_name))
            return 0
        require("onnx", "onnxruntime", "PIL")
        # Here, because it needs packages that were only now found to be there.
        from pnas_fast.export.command import export

        export(options)
    except OutputClosed:
        raise
    except KeyboardInterrupt:
        rest = "nothing was written" if options.study is None else "the same command adds the rest"
        print(f"{PROGRAM}: stopped, {rest}", file=sys.stderr)
        raise
    except (ExportError, OSError, MemoryError) as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
