"""The three engines, each as its users run it, and what a prompt's answer says of itself."""
import concurrent.futures
import dataclasses
import http.client
import json
import os
import pathlib
import socket
import subprocess

from stage import LONGEST_S, Failed, tail, write_for


@dataclasses.dataclass
class Answer:
    TITLES = ("ENGINE", "TENANT", "PROMPT TOKENS", "FROM CACHE", "FIRST TOKEN")

    engine: str
    tenant: str
    prompt_tokens: int
    cached: int  # of those, not computed but found
    first_ms: float  # from the prompt to the first token
    text: str

    def cells(self):
        return [self.engine, self.tenant, str(self.prompt_tokens), str(self.cached),
                f"{self.first_ms / 1000:.2f} s"]


class Reference:
    """kvasir-generate, which shares prefixes by --share."""

    name = "kvasir-generate"

    def __init__(self, stage):
        self._stage = stage
        self._libraries = stage.share(stage.paths["llama_lib"])
        self._prompt = stage.folder / "prompt.txt"

    def start(self, user, *words, hold=False):
        """hold: the sequence stays open until answer()."""
        return self._stage.start(
            user, self.name,
            [self._stage.bin["kvasir-generate"], "--model", self._stage.model, "--threads", 1,
             "--socket", self._stage.control, "--data-socket", self._stage.data, "--chat",
             "--prompt-file", self._prompt, "--share", "--output=json", "--context", 2560,
             *(["--hold"] if hold else []), *words],
            stdin=subprocess.PIPE if hold else None,
            LD_LIBRARY_PATH=f"{self._libraries}:{self._stage.lib}")

    def answer(self, process, tenant):
        self._stage.until(f"the answer of {self.name}",
                          lambda: whole_json(process.out) or process.poll() is not None)
        if process.stdin:
            process.stdin.close()
        said = json.loads(self._stage.finish(process))
        cached = said["cached_tokens"]
        return Answer(self.name, tenant, said["prompt_tokens"] + cached, cached, said["prompt_ms"],
                      said["text"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=LONGEST_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class LlamaServer:
    """An unmodified llama-server of one slot, on a socket in its user's folder."""

    name = "llama-server"

    def __init__(self, stage, user, name, context):
        tools = stage.share(stage.paths["llama_tools"] / "bin")
        self._stage, self.user = stage, user
        self._threads = concurrent.futures.ThreadPoolExecutor(1)
        self._socket, self.slots = user.folder / f"{name}.sock", user.folder / "slots"
        if not self.slots.exists():
            self.slots.mkdir(mode=0o700)
            os.chown(self.slots, user.uid, user.uid)
        self.process = stage.start(
            user, f"{self.name}-{name}",
            [tools / "llama-server", "-m", stage.model, "-c", context, "-np", 1, "-t", 1,
             "--host", self._socket, "--slot-save-path", f"{self.slots}/", "--no-warmup",
             "--cache-ram", 0],
            LD_LIBRARY_PATH=stage.lib, GGML_BACKEND_PATH=stage.lib / stage.paths["plugin"].name,
            LLAMA_ARG_DEVICE="KVASIR", LLAMA_ARG_FLASH_ATTN="on")

    def serves(self):
        try:
            return self._call("GET", "/health", None)[0] == 200
        except OSError:
            return False

    def wait(self):
        self._stage.until("a llama-server that serves", self.serves, self.process)

    def _call(self, method, path, body):
        connection = _UnixConnection(self._socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def post(self, path, **body):
        status, answer = self._call("POST", path, body)
        if status != 200:
            raise Failed(f"llama-server refused {path}: {answer}")
        return answer

    def ask(self, tokens, count):
        """A future of the answer: other engines work meanwhile."""
        def ask():
            said = self.post("/completion", prompt=tokens, n_predict=count, temperature=0,
                             id_slot=0, cache_prompt=True)
            computed = said["timings"]["prompt_n"]
            return Answer(self.name, "team-b", len(tokens), len(tokens) - computed,
                          said["timings"]["prompt_ms"], said["content"])
        return self._threads.submit(ask)

    def slot(self, user, verb, file, *words):
        """Starts kvasir-llama-slot."""
        return self._stage.start(
            user, "kvasir-llama-slot",
            [self._stage.bin["kvasir-llama-slot"], verb, file, "--model", self._stage.model,
             *words],
            LD_LIBRARY_PATH=self._stage.lib)


class Torch:
    """transformers with a KvasirCache, in the environment of ./dev setup --python."""

    name = "transformers"

    def __init__(self, stage, environment):
        self._stage, self._environment = stage, environment
        self._program = stage.share(pathlib.Path(__file__).parent) / "torch_program.py"
        self._package = stage.share(stage.paths["python"])

    def start(self, user, tokens, count):
        ids = write_for(user, user.folder / "tokens.json", json.dumps(tokens).encode())
        return self._stage.start(
            user, self.name,
            [self._environment / "bin" / "python", "-B", self._program, self._stage.model, ids,
             count, self._stage.control, self._stage.data],
            PYTHONPATH=self._package, KVASIR_LIBRARY=self._stage.lib / "libkvasir.so.1",
            HF_HUB_OFFLINE="1")

    def answer(self, process, tenant, decode):
        said = json.loads(self._stage.finish(process))
        return Answer(self.name, tenant, said["prompt_tokens"], said["cached_tokens"],
                      said["first_ms"], decode(said["token_ids"]))


def whole_json(path):
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None


def line_with(path, text):
    """The line of a log that has `text`, which must be there."""
    for line in path.read_text(errors="replace").splitlines():
        if text in line:
            return line[line.index(text):]
    raise Failed(f"'{text}' was not said: {tail(path)}")
