"""`transformers-tart ui`: a page in the browser to give examples, classify texts, correct answers and save a task."""

import argparse
import contextlib
import sys
import threading

from transformers_tart.commands.common import LOADING, add_shared, load_config, load_pipeline, modality_of
from transformers_tart.ui.page import check_modality, import_gradio, serve


SUMMARY = "Serve a page on which to give examples, classify texts, correct the answers and save the task."
EXAMPLE = "--model intfloat/multilingual-e5-small"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    help_text = "Hub id or folder of a TART repository or of any backbone of texts (default: mini, for first steps)"
    add_shared(parser, "--model", required=False, default="mini", help=help_text)
    add_shared(parser, *LOADING[1:])
    parser.add_argument("--host", default=LOOPBACK[0], help="address to serve on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, help="port to serve on (default: the first free one from 7860)")
    parser.add_argument(
        "--share",
        action="store_true",
        help="make the page public for a week, through a server of Gradio that its traffic passes",
    )


def is_local(args: argparse.Namespace) -> bool:
    """Return whether the page can be opened on this machine alone."""
    return args.host in LOOPBACK and not args.share


def run(args: argparse.Namespace) -> None:
    """Serve the page until the user interrupts; print its address to stderr."""
    import_gradio()  # before a model is loaded
    config = load_config(args)
    check_modality(modality_of(config))
    place = {"server_name": args.host, "server_port": args.port, "share": args.share}
    page = serve(load_pipeline(args, config), is_local=is_local(args), prevent_thread_lock=True, quiet=True, **place)
    for address in filter(None, (page.local_url, page.share_url)):
        print(f"The page is at {address}; end it with Ctrl-C.", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    page.close(verbose=False)
