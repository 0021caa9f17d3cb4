"""The command `peers`: the entry point, its groups of commands, and what every error looks like to a person.

An error is one line on standard error, `peers: <code>: message`, and an exit code: 1 failed, 2 wrong usage, 3 needs a
running device (or another process has the home), 130 interrupted. Set PEERS_DEBUG=1 to see where an error arose.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import platformdirs

from peers.cli import connect, demo, groups, identity, importing, sql, status, tables, up
from peers.cli.control_socket import CommandFailed
from peers.cli.output import abandon_stdout, complain, prepare_streams
from peers.errors import PeersError, RetryableError

_CLOSED_PIPE = 141
"""As a program that SIGPIPE ended: 128 + 13."""
_BUG = 70
"""EX_SOFTWARE of sysexits.h."""


@click.group(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--home",
    envvar="PEERS_HOME",
    type=click.Path(path_type=Path),
    help="The folder of this device's keys and data (or PEERS_HOME).  [default: the user's data folder]",
)
@click.version_option(package_name="peers", message="peers %(version)s")
@click.pass_context
def cli(context: click.Context, home: Path | None) -> None:
    """A local-first SQL database whose groups sync directly between people's devices.

    Start with `peers demo`; for real use with `peers init`, then `peers up` in one terminal and the other commands in
    another.
    """
    context.obj = home or Path(platformdirs.user_data_dir("peers", appauthor=False))


for command in (
    identity.init,
    identity.show_id,
    up.up,
    connect.connect,
    groups.group,
    tables.table,
    importing.import_csv,
    sql.sql,
    status.status,
    demo.demo,
):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    prepare_streams()
    logging.getLogger("peers").addHandler(logging.NullHandler())  # an error is told once, by `_report`
    try:
        code = cli.main(arguments, prog_name="peers", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        if os.environ.get("PEERS_DEBUG"):
            raise
        return _report(error)
    return code if isinstance(code, int) else 0


def _report(error: BaseException) -> int:
    """Say what went wrong in one line; the exit code."""
    error = _gist(error)
    match error:
        case BrokenPipeError() | SystemExit():  # click ends with the latter when a pipe is closed
            abandon_stdout()
            return _CLOSED_PIPE
        case KeyboardInterrupt() | click.Abort():
            return _complain("interrupted", "stopped", 130)
        case click.ClickException():
            return _report_click(error)
        case CommandFailed():
            return _complain(error.code, str(error), error.answered_exit_code)
        case PeersError():
            return _complain(error.code, str(error), error.exit_code)
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return _complain("os_error", f"{place}{error.strerror or error}", 1)
        case _:
            hint = "this is a bug; PEERS_DEBUG=1 shows where"
            return _complain("internal", f"{type(error).__name__}: {error} ({hint})", _BUG)


def _gist(error: BaseException) -> BaseException:
    """Of several errors at once the one that tells most: what cannot be retried before what followed from it."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_gist(inner) for inner in error.exceptions]
    own = [leaf for leaf in leaves if isinstance(leaf, PeersError)]
    return next((leaf for leaf in own if not isinstance(leaf, RetryableError)), (own or leaves)[0])


def _report_click(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return 2
    if isinstance(error, click.UsageError) and error.ctx is not None:
        for line in error.ctx.get_usage().splitlines():
            complain(line)
        complain(f"Try `{error.ctx.command_path} --help`.")
    return _complain("usage", error.format_message(), error.exit_code)


def _complain(code: str, message: str, exit_code: int) -> int:
    with contextlib.suppress(OSError):  # nobody reads standard error either: the exit code still tells
        complain(f"peers: {code}: " + " ".join(message.split("\n")))
    return exit_code
