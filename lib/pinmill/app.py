"""The annotation notebook of one workflow as an app: Voilà shows its screen and none of its code."""

import json
import socket
from pathlib import Path

import tornado.httpserver
import tornado.ioloop
from traitlets.config import Config
from voila.app import Voila

from pinmill.cell import INJECTED
from pinmill.notebook import read_tags

IDLE = 1800  # s until the kernel of a page that nobody looks at any more is ended; a page that is closed ends its own
LOOK = 60  # s between two looks for such kernels
CHECKED = {"allow_remote_access": False, "local_hostnames": ["localhost"]}  # a web page elsewhere cannot ask this one
POLICY = (  # the page loads nothing from elsewhere: Voilà's would take icons from a CDN
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' data: blob:; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)


class Screen(Voila):
    """Voilà on a socket that listens already."""

    listening: socket.socket

    def listen(self) -> None:
        """Answer until SIGTERM or Ctrl-C, then end all kernels."""
        server = tornado.httpserver.HTTPServer(self.app)
        self.listening.setblocking(False)
        server.add_sockets([self.listening])
        self.ioloop = tornado.ioloop.IOLoop.current()
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            server.stop()
        finally:
            self.stop()


def copy_notebook(source: Path, folder: Path, workflow: str) -> Path:
    """A copy of a notebook in `folder`: without its cells of tag no-app, and with another workflow, as if injected."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "no-app" not in read_tags(cell)]
    place = next(n for n, cell in enumerate(cells) if "parameters" in read_tags(cell))
    about = {"cell_type": "code", "id": "injected", "metadata": {}, "execution_count": None, "outputs": []}
    cells.insert(place + 1, {**about, "source": f"{INJECTED}workflow = {workflow!r}"})
    target = folder / source.name
    target.write_text(json.dumps(notebook | {"cells": cells}), encoding="utf-8")
    return target


def run_app(notebook: Path, listening: socket.socket, *, is_local: bool) -> None:
    """Show a notebook on a socket until it is ended; `is_local`: only to pages that this machine is asked for."""
    config = Config()
    config.Voila.open_browser, config.Voila.log_level = False, "ERROR"
    config.Voila.root_dir = str(notebook.parent)  # it gives files of that folder: there is but the notebook
    config.Voila.tornado_settings = {"headers": {"Content-Security-Policy": POLICY}, **(CHECKED if is_local else {})}
    config.VoilaConfiguration.preheat_kernel = True  # so that the next page is there at once
    config.VoilaConfiguration.file_allowlist = []
    config.KernelManager.transport_encryption = "auto"  # other users of this machine hear nothing
    config.MappingKernelManager.cull_idle_timeout = IDLE
    config.MappingKernelManager.cull_interval = LOOK
    screen = Screen.instance(config=config)
    screen.listening = listening
    screen.initialize([str(notebook), "--no-browser"])
    screen.start()
