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
    """A copy of a notebook in `folder` whose workflow is another, as papermill would inject it."""
    notebook = json.loads(source.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    place = next(n for n, cell in enumerate(cells) if "parameters" in read_tags(cell))
    about = {"cell_type": "code", "id": "injected", "metadata": {}, "execution_count": None, "outputs": []}
    cells.insert(place + 1, {**about, "source": f"{INJECTED}workflow = {workflow!r}"})
    target = folder / source.name
    target.write_text(json.dumps(notebook), encoding="utf-8")
    return target


def run_app(notebook: Path, listening: socket.socket, *, is_local: bool) -> None:
    """Show a notebook on a socket until it is ended; `is_local`: only to pages that this machine is asked for."""
    config = Config()
    config.Voila.open_browser, config.Voila.log_level = False, "ERROR"
    config.Voila.root_dir = str(notebook.parent)  # it gives files of that folder: there is but the notebook
    config.Voila.tornado_settings = CHECKED if is_local else {}
    config.VoilaConfiguration.preheat_kernel = True  # so that the next page is there at once
    config.VoilaConfiguration.file_allowlist = []
    config.MappingKernelManager.cull_idle_timeout = IDLE
    config.MappingKernelManager.cull_interval = LOOK
    screen = Screen.instance(config=config)
    screen.listening = listening
    screen.initialize([str(notebook), "--no-browser"])
    screen.start()
