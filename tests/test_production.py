"""Production files: a real nginx in front of a real server, systemd checks the unit, the health check is run."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

import httpx
import pytest
from pinmill import __version__
from pinmill.errors import ParameterError, ProjectError
from pinmill.production import render_docker, render_nginx, render_systemd, write_files
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Server, Workplace

HOST = "model.example.org"
MAIN = """\
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/main.log warn;
events {{}}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/ours.conf;
}}
"""


class Echo(BaseHTTPRequestHandler):
    """A server that answers with what arrived; /recent-log ends only when its first line was read."""

    protocol_version = "HTTP/1.1"
    read: ClassVar[threading.Event] = threading.Event()
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        length = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        body = json.dumps(
            {"path": self.path, "length": length, "headers": {k.lower(): v for k, v in self.headers.items()}}
        )
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Request-Id", "req-1")
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        if self.path != "/recent-log":
            return self.do_POST()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst\n\r\n")
        assert self.read.wait(30), "the first line was held back"
        self.wfile.write(b"5\r\nlast\n\r\n0\r\n\r\n")
        return None

    def log_message(self, *said: object) -> None:
        """Nothing is printed."""


@contextmanager
def echo(status: int = 200) -> Iterator[int]:
    """The port of a server that echoes while the context runs."""
    handler = type("Handler", (Echo,), {"read": threading.Event(), "status": status})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Echo.read = handler.read
    try:
        yield server.server_address[1]
    finally:
        handler.read.set()
        server.shutdown()
        server.server_close()
        thread.join()


def find_ports(count: int) -> list[int]:
    """Ports that nobody has."""
    tried = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in tried]
    for each in tried:
        each.close()
    return ports


class Nginx:
    """A running nginx with our configuration: its ports, its logs, and clients that trust its certificate."""

    def __init__(self, folder: Path, plain: int, tls: int) -> None:
        self.folder, self.plain, self.tls = folder, f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"

    def ask(self, method: str, path: str, *, come_from: str = "127.0.0.1", **options: object) -> httpx.Response:
        """The answer over TLS, with the certificate verified for the host's name."""
        verified = ssl.create_default_context(cafile=str(self.folder / "own.pem"))
        with httpx.Client(transport=httpx.HTTPTransport(verify=verified, local_address=come_from)) as client:
            headers = {"Host": HOST, **options.pop("headers", {})}
            known = {"sni_hostname": HOST}
            return client.request(method, f"{self.tls}{path}", headers=headers, extensions=known, timeout=20, **options)

    def announce(self, path: str, length: int) -> str:
        """The whole answer to a POST that says how long its body will be, and sends none of it."""
        verified = ssl.create_default_context(cafile=str(self.folder / "own.pem"))
        address = ("127.0.0.1", int(self.tls.rpartition(":")[2]))
        with verified.wrap_socket(socket.create_connection(address, 20), server_hostname=HOST) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def logs(self) -> dict[str, str]:
        """What stands in its logs."""
        return {log.name: log.read_text() for log in self.folder.glob("*.log")}


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def run_nginx(folder: Path, upstream: int, find_program: Callable[[str, str], str]) -> Iterator[Nginx]:
    """nginx by hand, with our file as it is written but for the ports it listens on and the folder of its logs."""
    program, openssl = find_program("nginx", "nginx"), find_program("openssl", "openssl")
    certificate, key = folder / "own.pem", folder / "own.key"
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    plain, tls = find_ports(2)
    ours = render_nginx("tiny", port=upstream, name=HOST, certificate=str(certificate), key=str(key))
    for old, new in ((":80;", f":{plain};"), (" 80;", f" {plain};"), ("443 ssl;", f"{tls} ssl;")):
        assert old in ours
        ours = ours.replace(old, new)
    (folder / "ours.conf").write_text(ours.replace("/var/log/nginx", str(folder)))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "main.conf").write_text(MAIN.format(folder=folder, user=user))
    command = [program, "-p", str(folder), "-c", str(folder / "main.conf"), "-e", str(folder / "main.log")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr, tested.stderr
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: is_open(tls), "nginx", seconds=20, process=process)
        yield Nginx(folder, plain, tls)
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, find_program: Callable[[str, str], str]) -> Iterator[Nginx]:
    """A running nginx in front of a server that echoes."""
    with echo() as upstream, run_nginx(tmp_path_factory.mktemp("nginx"), upstream, find_program) as running:
        yield running


@pytest.fixture
def unit_checker(find_program: Callable[[str, str], str]) -> str:
    """The program that checks units."""
    return find_program("systemd-analyze", "systemd")


def test_plain_http_is_redirected_to_tls_and_a_post_stays_one(nginx: Nginx) -> None:
    answer = httpx.post(f"{nginx.plain}/prediction", json="a text", headers={"Host": "anything"})
    assert (answer.status_code, answer.headers["Location"]) == (308, f"https://{HOST}/prediction")


def test_a_call_arrives_with_its_caller_and_host_and_the_answer_with_the_gateways_id(nginx: Nginx) -> None:
    forged = {"X-Forwarded-For": "6.6.6.6", "Authorization": "Bearer abc"}
    answer = nginx.ask("POST", "/predictions?echo_input=true", json=["a text"], headers=forged)
    arrived = answer.json()
    names = ("host", "x-forwarded-for", "x-forwarded-proto", "authorization", "content-type")
    assert (arrived["path"], arrived["length"]) == ("/predictions?echo_input=true", len('["a text"]'))
    assert [arrived["headers"][name] for name in names] == [
        HOST, "127.0.0.1", "https", "Bearer abc", "application/json",
    ]  # fmt: skip
    assert answer.headers["X-Request-Id"] == "req-1"


def test_answers_carry_security_headers_and_no_version_of_nginx(nginx: Nginx) -> None:
    headers = nginx.ask("GET", "/ping").headers
    names = ("Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Server")
    assert [headers[name] for name in names] == ["max-age=31536000", "nosniff", "DENY", "no-referrer", "nginx"]


def test_old_tls_is_refused(nginx: Nginx) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError), httpx.Client(verify=old) as client:
        client.get(f"{nginx.tls}/ping")


@pytest.mark.parametrize(
    ("path", "sent", "most"), [("/predictions", 2_000_000, 2_000_000), ("/models", 3_000_000, 256_000_000)]
)
def test_a_body_may_be_as_large_as_the_gateway_takes_it(nginx: Nginx, path: str, sent: int, most: int) -> None:
    taken = nginx.ask("POST", path, content=bytes(sent))
    assert (taken.status_code, taken.json()["length"]) == (200, sent)
    refused = nginx.announce(path, most + 1)
    assert refused.startswith("HTTP/1.1 413 ")
    assert "\r\nContent-Type: application/problem+json\r\n" in refused
    assert json.loads(refused.partition("\r\n\r\n")[2])["title"] == "Content Too Large"


def test_metrics_are_for_this_machine_only(nginx: Nginx) -> None:
    assert nginx.ask("GET", "/metrics").status_code == 200
    refused = nginx.ask("GET", "/metrics", come_from="127.0.0.2")
    assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")
    assert nginx.ask("GET", "/ping", come_from="127.0.0.2").status_code == 200


def test_the_call_log_is_not_held_back(nginx: Nginx) -> None:
    verified = ssl.create_default_context(cafile=str(nginx.folder / "own.pem"))
    with (
        httpx.Client(verify=verified) as client,
        client.stream("GET", f"{nginx.tls}/recent-log", extensions={"sni_hostname": HOST}, timeout=20) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "first"
        Echo.read.set()
        assert list(lines) == ["last"]


def test_no_text_and_no_token_stands_in_a_log(tmp_path: Path, find_program: Callable[[str, str], str]) -> None:
    (nobody,) = find_ports(1)
    with run_nginx(
        tmp_path, nobody, find_program
    ) as nginx:  # each request fails, and nginx would tell of it with the request's line
        answers = [
            nginx.ask("GET", "/prediction?input=private-text&token=private-token", headers={"X-Note": "private"}),
            nginx.ask(
                "POST", "/predictions?private=text", headers={"Authorization": "Bearer private-token"}, json="private"
            ),
            nginx.ask("POST", "/predictions?private=text", content=bytes(2_000_001)),
            httpx.get(f"{nginx.plain}/prediction?input=private-text"),
        ]
    logs = nginx.logs()
    logged = [json.loads(line) for line in logs["pinmill-tiny.log"].splitlines()]
    assert [answer.status_code for answer in answers] == [502, 502, 413, 308]
    assert answers[0].json()["title"] == "Bad Gateway"
    assert [(line["method"], line["path"], line["status"]) for line in logged] == [
        ("GET", "/prediction", 502), ("POST", "/predictions", 502), ("POST", "/predictions", 413),
        ("GET", "/prediction", 308),
    ]  # fmt: skip
    assert [name for name, log in logs.items() if "private" in log] == []


def test_the_real_gateway_behind_it_knows_its_callers(
    trained: Workplace, serve: Callable[..., Server], tmp_path: Path, find_program: Callable[[str, str], str]
) -> None:
    token = trained.pinmill("token", "create", "bench", "--role", "scorer").stdout.split()[-1]
    server = serve("--trusted-proxy", "127.0.0.1")
    (tmp_path / "nginx").mkdir()
    with run_nginx(tmp_path / "nginx", int(server.url.rpartition(":")[2]), find_program) as nginx:
        given = {"Authorization": f"Bearer {token}"}
        scored = nginx.ask("POST", "/prediction", json="win a free prize now", headers=given)
        forged = nginx.ask("GET", "/", come_from="127.0.0.2", headers=given | {"X-Forwarded-For": "6.6.6.6"})
        unknown = nginx.ask("POST", "/prediction", json="win a free prize now")
        larger = server.ask("POST", "/prediction", headers=given, content=bytes(2_000_001))
        refused = nginx.ask("POST", "/prediction", headers=given, content=bytes(2_000_001))
    logged = [json.loads(line) for line in nginx.logs()["pinmill-tiny.log"].splitlines()]
    assert (scored.status_code, scored.json()["label"], unknown.status_code) == (200, "spam", 401)
    assert forged.json()["caller"] == {"name": "bench", "address": "127.0.0.2"}
    assert logged[0]["request_id"] == scored.headers["X-Request-Id"]
    assert [(each.status_code, each.json()["status"]) for each in (larger, refused)] == [(413, 413)] * 2
    assert token not in "".join(nginx.logs().values()) + server.log.read_text()


@pytest.mark.parametrize("folder", ["project", "a project, of ours"])
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path, unit_checker: str, folder: str) -> None:
    (tmp_path / folder).mkdir()
    unit = tmp_path / "pinmill-tiny.service"
    unit.write_text(render_systemd("tiny", port=8000, root=tmp_path / folder, user="daemon"))
    verified = subprocess.run([unit_checker, "verify", unit], capture_output=True, text=True)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    judged = [unit_checker, "security", "--offline=true", "--threshold=20", "--no-pager", unit]  # in tenths of 0..10
    scored = subprocess.run(judged, capture_output=True, text=True)
    assert scored.returncode == 0, scored.stdout


def test_systemd_finds_a_damaged_unit(tmp_path: Path, unit_checker: str) -> None:
    unit = tmp_path / "pinmill-tiny.service"
    unit.write_text(
        render_systemd("tiny", port=8000, root=tmp_path, user="daemon").replace("KillMode=process", "KillMode=x")
    )
    assert (
        "Failed to parse kill mode"
        in subprocess.run([unit_checker, "verify", unit], capture_output=True, text=True).stderr
    )


def test_the_unit_writes_to_outputs_and_reports_alone_and_stops_after_the_gateway(tmp_path: Path) -> None:
    lines = render_systemd("tiny", port=8123, root=tmp_path, user="scorer").splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert unit["ReadWritePaths"] == f'"{tmp_path}/outputs" "{tmp_path}/reports"'
    assert (unit["User"], unit["EnvironmentFile"], unit["KillSignal"]) == ("scorer", f"-{tmp_path}/.env", "SIGTERM")
    assert int(unit["TimeoutStopSec"]) > 30
    program = os.path.join(os.path.dirname(sys.executable), "pinmill")
    assert unit["ExecStart"] == f'"{program}" serve tiny --host 127.0.0.1 --port 8123 --trusted-proxy 127.0.0.1'


def read_dockerfile(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their words."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(words.split())) for name, words in (line.split(" ", 1) for line in lines)]


def is_sent(path: str, ignore: str) -> bool:
    """Whether docker sends a path to the build, as its reference says: the last line that matches decides."""
    sent = True
    for line in filter(None, (line for line in ignore.splitlines() if not line.startswith("#"))):
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))] + (parts if "**/" in line else [])
        if any(fnmatch.fnmatchcase(head, pattern) for head in heads):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("from_source", [True, False])
def test_the_image_holds_what_is_served_and_no_secret_and_runs_as_nobody_special(
    tmp_path: Path, from_source: bool
) -> None:
    if from_source:
        (tmp_path / "lib" / "pinmill").mkdir(parents=True)
        (tmp_path / "lib" / "pinmill" / "__init__.py").touch()
    file = tmp_path / "outputs" / "production" / "tiny.Dockerfile"
    dockerfile, ignore = render_docker("tiny", port=8000, root=tmp_path, file=file).values()
    instructions = read_dockerfile(dockerfile)
    copied = [words.split()[:-1] for name, words in instructions if name == "COPY"]
    wheel = f"pinmill-{__version__}-py3-none-any.whl"
    own = [["pyproject.toml", "README.md", "LICENSE"], ["lib"]] if from_source else [[wheel]]
    assert copied == [["requirements.lock"], *own, ["notebooks"], ["params"], ["reports"]]
    sources = [source for each in copied for source in each]
    assert [source for source in sources if not is_sent(source, ignore)] == []
    kept_out = [".env", "data/spam.csv", "outputs/pinmill.sqlite", ".git/config", "reports/_pages/index.html",
                "notebooks/.ipynb_checkpoints/serve.ipynb", "schedule.cron"]  # fmt: skip
    assert [path for path in kept_out if is_sent(path, ignore)] == []
    assert is_sent("notebooks/serve.ipynb", ignore)
    assert instructions[0] == ("FROM", "python:3.11-slim")
    assert ("RUN", "pip install --require-hashes -r requirements.lock") in instructions
    last = dict(instructions)
    assert (last["USER"], last["VOLUME"], last["STOPSIGNAL"]) == ("pinmill", "/project/outputs", "SIGTERM")
    assert json.loads(last["CMD"]) == ["pinmill", "serve", "tiny", "--host", "0.0.0.0", "--port", "8000"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_follows_ready(tmp_path: Path, status: int | None, healthy: bool) -> None:
    with echo(status or 200) as port:
        asked = port if status else find_ports(1)[0]
        dockerfile, _ = render_docker("tiny", port=asked, root=tmp_path, file=tmp_path / "Dockerfile").values()
        words = dict(read_dockerfile(dockerfile))["HEALTHCHECK"].split(" CMD ", 1)[1]
        program, *arguments = json.loads(words)
        assert program == "python"
        done = subprocess.run([sys.executable, *arguments], capture_output=True)
    assert (done.returncode == 0) == healthy


def test_docker_builds_the_image(tmp_path: Path, workplace: Workplace) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("SKIPPED LOUDLY: NO IMAGE WAS BUILT FROM THE DOCKERFILE: there is no docker that works")
    (workplace.root / "reports").mkdir()
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", workplace.root]
    subprocess.run([*wheel, os.path.dirname(os.path.dirname(__file__))], check=True)
    workplace.pinmill("export", "docker", "tiny", "-o", "Dockerfile")
    built = [docker, "build", "-q", "-f", workplace.root / "Dockerfile", workplace.root]
    image = subprocess.run(built, check=True, capture_output=True, text=True).stdout.strip()
    said = subprocess.run(
        [docker, "run", "--rm", image, "id", "-un"], check=True, capture_output=True, text=True
    ).stdout
    assert said.strip() == "pinmill"


def test_values_that_would_mean_something_else_are_all_refused() -> None:
    with pytest.raises(ParameterError, match=r"2 problems in nginx.conf: name is 'a; }'; key is '\$home/a.key': only"):
        render_nginx("tiny", port=8000, name="a; }", certificate="/etc/a.pem", key="$home/a.key")


def test_nothing_is_written_when_one_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("mine")
    with pytest.raises(ProjectError, match=r"old would be overwritten\. Add --force"):
        write_files({tmp_path / "new": "1", tmp_path / "old": "2"}, force=False)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"old": "mine"}
    write_files({tmp_path / "new": "1", tmp_path / "old": "2"}, force=True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"new": "1", "old": "2"}


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("nginx", ["pinmill-tiny.nginx.conf"]),
        ("systemd", ["pinmill-tiny.service"]),
        ("docker", ["tiny.Dockerfile", "tiny.Dockerfile.dockerignore"]),
    ],
)
def test_the_command_writes_outside_git_says_what_is_next_and_refuses_to_overwrite(
    workplace: Workplace, kind: str, files: list[str]
) -> None:
    said = workplace.pinmill("export", kind, "tiny").stdout
    folder = workplace.root / "outputs" / "production"
    assert sorted(file.name for file in folder.iterdir()) == files
    assert all(str(folder / name) in said for name in files)
    assert "Next" in said
    first = (folder / files[0]).read_text()
    assert f"Written by pinmill {__version__}" in first
    assert "keep it outside git" in first
    (folder / files[0]).write_text("mine")
    refused = workplace.pinmill("export", kind, "tiny", code=2)
    assert "Add --force" in refused.stderr
    assert (folder / files[0]).read_text() == "mine"
    workplace.pinmill("export", kind, "tiny", "--force")
    assert (folder / files[0]).read_text() == first
    workplace.pinmill("export", kind, "tiny", "-o", ".")
    assert (workplace.root / files[0]).is_file()


def test_an_unknown_workflow_is_refused(workplace: Workplace) -> None:
    assert "Did you mean 'tiny'?" in workplace.pinmill("export", "nginx", "tinny", code=2).stderr
