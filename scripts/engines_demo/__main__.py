"""The demonstration behind ./dev demo engines: engines of two users on one daemon.

Environment: see PATHS. KVASIR_LLAMA_LIB has the libraries of kvasir-generate, KVASIR_LLAMA_TOOLS
is what ./dev llama made, KVASIR_LLAMA_TOOLS_PLUGIN the plug-in for that; KVASIR_PYTHON_ENV, of
./dev setup --python, may not be there.

Exit status 0: all that is claimed was seen; 1: something was not; 2: it cannot be shown here; 130:
Ctrl-C. Whatever it is, no process and no file is left.
"""
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

from engines import Answer, LlamaServer, Reference, Torch, line_with, whole_json
from stage import LONGEST_S, Failed, Stage, columns, only, write_for
from users import CannotRun, become_several

ANSWER_TOKENS, LONG_TOKENS = 40, 600
LLAMA_ROWS, TOO_MANY_ROWS = 2048, 8192
COLUMNS = 96
TOP_TITLES = ("TENANT", "OF LIMIT", "CHARGED", "HELD", "LIMIT", "SEQUENCES", "SEEN", "HIT",
              "REJECTED/S")


def heading(text):
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def say(text):
    print(textwrap.fill(text, COLUMNS, initial_indent="   ", subsequent_indent="   "), flush=True)


def show(text):
    for line in text.rstrip().splitlines():
        print(f"   | {line}".rstrip(), flush=True)


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


class Story:
    def __init__(self, stage):
        self.stage, self.seen, self.failed = stage, 0, 0
        self.reference, self.torch = Reference(stage), None
        self.tokens = self.server = None

    def expect(self, fact, text):
        """A claim, and whether it was seen. What follows is told all the same."""
        self.seen, self.failed = self.seen + bool(fact), self.failed + (not fact)
        print(textwrap.fill(text, COLUMNS, initial_indent="   seen: " if fact else "   NOT SEEN: ",
                            subsequent_indent="         "), flush=True)

    def tell(self):
        self.begin()
        self.together()
        self.again()
        self.quota()
        self.end()

    # --- 1

    def begin(self):
        stage = self.stage
        heading("1. One daemon, two tenants")
        stage.start_daemon()
        say(f"kvasird runs as user {stage.daemon_user.uid}. It knows tenants by the users of their "
            f"processes: team-a is {stage.a.uid}, team-b is {stage.b.uid}. Neither has a "
            "capability, nor a look into the other's folder.")
        show(only(stage.ctl("tenants"), "TENANT", "SESSIONS", "HELD", "CHARGED", "OWN", "LIMIT"))
        say("OWN: what it has for sure, whatever the others want.")
        self.torch = self.make_torch()
        stage.start_top()

    def make_torch(self):
        place = self.stage.paths["python_env"]
        if not os.path.exists(place / "bin" / "python"):
            say("transformers is left out: ./dev setup --python installs it (6 GB).")
            return None
        environment = self.stage.share_large(place)
        if environment is None:
            say(f"transformers is left out: other users cannot read {place}, and to mount it where "
                "they can is not permitted here.")
            return None
        python = [environment / "bin" / "python", "-c", ""]
        if self.stage.start(self.stage.a, "python", python).wait(LONGEST_S) != 0:
            say(f"transformers is left out: other users cannot run the Python of {place}.")
            return None
        return Torch(self.stage, environment)

    # --- 2

    def together(self):
        stage = self.stage
        heading("2. Engines of both tenants answer the same prompt at the same time")
        self.server = LlamaServer(stage, stage.b, "first", LLAMA_ROWS)
        self.server.wait()
        text = (stage.folder / "prompt.txt").read_text()
        self.tokens = self.server.post(
            "/tokenize", content=f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
            add_special=True)["tokens"]
        say("team-a runs kvasir-generate, the reference engine"
            f"{', and transformers with a KvasirCache' if self.torch else ''}. team-b runs an "
            f"unmodified llama-server; the plug-in puts its KV cache, {LLAMA_ROWS} rows, into the "
            f"daemon's memory. The prompt is a text of {len(self.tokens)} tokens that ends so:")
        show(text.splitlines()[-1])
        running = self.reference.start(stage.a, "--tokens", ANSWER_TOKENS, hold=True)
        torch = self.torch and self.torch.start(stage.a, self.tokens, ANSWER_TOKENS)
        asked = self.server.ask(self.tokens, ANSWER_TOKENS)
        table = stage.top_with("both tenants at work", lambda rows: (
            rows["team-a"]["SEEN"] != "0" and
            all(row["SEQUENCES"] != "0" for row in rows.values())))
        say("kvasirctl top while they work. SEEN are rows that engines committed; llama.cpp "
            "commits none, its bytes are held all the same:")
        show(only(table, *TOP_TITLES))
        answers = [self.reference.answer(running, "team-a"), asked.result()]
        if torch:
            answers.append(self.torch.answer(torch, "team-a", self.decode))
        self.firsts = {answer.engine: answer for answer in answers}
        show(columns([Answer.TITLES, *(answer.cells() for answer in answers)]))
        for answer in answers:
            say(f"{answer.engine} wrote: {' '.join(answer.text.split())} ...")
        self.expect(all(answer.text.strip() for answer in answers), "every engine wrote a text")
        self.expect({answer.prompt_tokens for answer in answers} == {len(self.tokens)},
                    "all prompts have the same number of tokens")
        self.expect(not any(answer.cached for answer in answers),
                    "nobody found anything in the cache: each engine computed the whole prompt")

    def decode(self, ids):
        return self.server.post("/detokenize", tokens=ids)["content"]

    # --- 3

    def again(self):
        stage = self.stage
        heading("3. The same prompt again: a tenant finds its own prefixes, and nobody else's")
        say("llama-server writes a slot into a file when asked; kvasir-llama-slot publishes its "
            "rows in the daemon. Then that server ends, and another one is started. The other "
            "engines have published by themselves, and have ended.")
        self.server.post("/slots/0?action=save", filename="first")
        published = stage.finish(self.server.slot(stage.b, "save", self.server.slots / "first"))
        stage.end(self.server.process)
        self.server = LlamaServer(stage, stage.b, "second", LLAMA_ROWS)
        self.server.wait()
        before, shown = stage.stats(), len(stage.tops())
        running = self.reference.start(stage.a, "--tokens", ANSWER_TOKENS)
        loaded, rows, brought_ms = self.load_slot()
        answers = [self.reference.answer(running, "team-a"), loaded]
        after = stage.stats()
        torch = self.torch and self.torch.start(stage.a, self.tokens, ANSWER_TOKENS)
        others = self.ask_for_the_others()
        if torch:
            answers.append(self.torch.answer(torch, "team-a", self.decode))
        self.seconds = {answer.engine: answer for answer in answers}
        show(columns([(*Answer.TITLES, "BEFORE", "SOONER BY")] + [
            [*answer.cells(), first.cells()[-1], f"{first.first_ms / answer.first_ms:.0f}x"]
            for answer in answers for first in [self.firsts[answer.engine]]]))
        say("BEFORE: its first token in part 2, where the engines shared this host's "
            f"{os.cpu_count()} cores. That of llama-server has the {brought_ms / 1000:.2f} s in it "
            "that kvasir-llama-slot and restoring the slot took.")
        say("kvasirctl top when they asked (HIT: of the prompts' tokens, those that were there):")
        self.show_hits(shown)
        for answer in answers:
            self.expect(0.9 * answer.prompt_tokens < answer.cached < answer.prompt_tokens,
                        f"{answer.engine}: {answer.cached} of {answer.prompt_tokens} tokens came "
                        "from a process before it")
        self.expect(rows == loaded.cached <= int(published),
                    f"kvasir-llama-slot published {int(published)} rows, and another process "
                    f"brought {rows} of them into the new server's slot")
        for tenant in ("team-a", "team-b"):
            self.expect(after[tenant]["prefix_hits"] == before[tenant]["prefix_hits"] + 1,
                        f"{tenant}: the daemon counts this prefix hit")
        self.expect_isolation(*others)

    def show_hits(self, first):
        """One table with the hits of both tenants, or where they came apart one for each."""
        def hit(tenant, rows):
            return rows[tenant]["HIT"] not in ("-", "0.0%")
        tables = [self.stage.top_with(f"a hit of {tenant}", functools.partial(hit, tenant), first)
                  for tenant in ("team-a", "team-b")]
        for table in sorted(set(tables), key=self.stage.tops().index):
            show(only(table, *TOP_TITLES))

    def load_slot(self):
        """Brings the prefix into the server's slot. Its answer, the rows, the ms it took."""
        stage, server = self.stage, self.server
        tokens = write_for(stage.b, stage.b.folder / "prompt.json",
                           json.dumps(self.tokens).encode())
        start = time.monotonic()
        rows = int(stage.finish(server.slot(
            stage.b, "load", server.slots / "second", "--like", server.slots / "first", "--tokens",
            tokens)))
        server.post("/slots/0?action=restore", filename="second")
        brought_ms = 1000 * (time.monotonic() - start)
        answer = server.ask(self.tokens, ANSWER_TOKENS).result()
        answer.first_ms += brought_ms
        return answer, rows, brought_ms

    def ask_for_the_others(self):
        """Each tenant asks for what the other one has published."""
        stage = self.stage
        before = stage.stats()
        as_b = self.reference.start(stage.b, "--tokens", 1)
        tokens, like = (write_for(stage.a, stage.a.folder / name, data) for name, data in (
            ("prompt.json", json.dumps(self.tokens).encode()),
            ("like", (self.server.slots / "first").read_bytes())))
        as_a = self.server.slot(stage.a, "load", stage.a.folder / "other", "--like", like,
                                "--tokens", tokens)
        as_a.wait(LONGEST_S)
        return before, self.reference.answer(as_b, "team-b"), as_a

    def expect_isolation(self, before, answer, as_a):
        now = self.stage.stats()
        self.expect(answer.cached == 0 and
                    now["team-b"]["prefix_hits"] == before["team-b"]["prefix_hits"],
                    f"team-b runs kvasir-generate with the same prompt and finds {answer.cached} "
                    f"tokens of team-a's: it computes {answer.prompt_tokens - answer.cached}, in "
                    f"{answer.first_ms / 1000:.1f} s")
        why = line_with(as_a.err, "kvasir-llama-slot: ")
        self.expect(as_a.returncode == 1 and "nothing of these tokens is there" in why,
                    "team-a asks for the rows of team-b's slot, with the very tokens and a copy of "
                    f"the file for their layout: \"{why}\", exit status {as_a.returncode}")

    # --- 4

    def quota(self):
        stage = self.stage
        heading("4. team-b runs into its limit; team-a does not notice")
        before = stage.stats()
        charged, limit = (mib(before["team-b"][key]) for key in ("charged_bytes", "limit_bytes"))
        say(f"team-a writes a longer answer. Meanwhile team-b, charged {charged} of its {limit}, "
            f"starts one more llama-server, for {TOO_MANY_ROWS} rows. It says before it ends:")
        running = self.reference.start(stage.a, "--tokens", LONG_TOKENS, "--ignore-end", hold=True)
        stage.until("rows of team-a", lambda: stage.stats()["team-a"]["rows_seen"] >
                    self.seconds[Reference.name].cached, running)
        server = LlamaServer(stage, stage.b, "large", TOO_MANY_ROWS)
        stage.until("its end", lambda: server.process.poll() is not None or server.serves())
        code = server.process.poll()
        if code is None:
            raise Failed(f"team-b got {TOO_MANY_ROWS} rows: its limit was not met")
        after = stage.stats()
        why = line_with(server.process.err, "kvasir: ")
        show(textwrap.fill(why, COLUMNS - 5))
        again = self.server.ask(self.tokens, ANSWER_TOKENS).result()
        stage.until("team-a's answer", lambda: whole_json(running.out), running)
        written = stage.stats()["team-a"]["rows_seen"]
        answer = self.reference.answer(running, "team-a")
        a, b = after["team-a"], after["team-b"]
        self.expect(code > 0 and "no memory for llama.cpp" in why,
                    f"the server for {TOO_MANY_ROWS} rows is refused in a sentence, and ends with "
                    f"status {code}")
        self.expect(b["rejected_calls"] > before["team-b"]["rejected_calls"] and
                    b["charged_bytes"] <= b["limit_bytes"],
                    f"the daemon counts the refusal, and charges team-b {mib(b['charged_bytes'])}")
        self.expect(b["prefixes"] <= before["team-b"]["prefixes"],
                    f"team-b's cached prefixes make room for its engines first: it had "
                    f"{before['team-b']['prefixes']}, and has {b['prefixes']}")
        self.expect(again.text == self.seconds[LlamaServer.name].text,
                    "team-b's other server goes on, and answers as before")
        self.expect(a["sequences"] == 1 and written >= a["rows_seen"] and
                    answer.text.startswith(self.seconds[Reference.name].text),
                    f"team-a's sequence had {a['rows_seen']} rows then and grew to {written}; its "
                    "answer begins with that of before, letter for letter")
        self.expect(a["rejected_calls"] == before["team-a"]["rejected_calls"] and
                    a["prefixes"] == before["team-a"]["prefixes"],
                    "nothing was refused to team-a, and nothing taken from what it has cached")

    # --- 5

    def end(self):
        stage = self.stage
        heading("5. What is left")
        stage.end(self.server.process)
        stage.end(stage.top, -signal.SIGTERM)

        def ended():
            now = stage.stats()
            return None if any(tenant["sessions"] for tenant in now.values()) else now
        stats = stage.until("the end of all sessions", ended)
        say("All engines have ended. What kvasirctl stats counts of each tenant:")
        titles = {"LOOKUPS": "prefix_lookups", "HITS": "prefix_hits", "TOKENS ASKED": "prefix_rows",
                  "FOUND": "prefix_rows_hit", "REFUSALS": "rejected_calls",
                  "SEQUENCES": "sequences", "PREFIXES": "prefixes"}
        show(columns([["TENANT", *titles, "HELD"]] + [
            [name, *(str(t[key]) for key in titles.values()), mib(t["held_bytes"])]
            for name, t in stats.items()]))
        self.expect(all(t["sequences"] == 0 and t["held_bytes"] == t["prefix_bytes"] and
                        t["violations"] == 0 for t in stats.values()),
                    "what tenants hold are their cached prefixes and nothing else")
        say("Both give these up, by kvasirctl evict:")
        for name in stats:
            show(stage.ctl("evict", f"--tenant={name}"))
        self.expect(all(t["held_bytes"] == t["charged_bytes"] == 0 for t in stage.stats().values()),
                    "no tenant holds a byte, or is charged for one")
        stage.end(stage.daemon)
        self.expect(not stage.control.exists(), "kvasird has stopped, and removed its sockets")


def write_prompt(path):
    """Public-domain prose, from the Debian package bible-kjv-text."""
    verses = subprocess.run(["bible", "-f", "gen1:1-2:8"], check=True, capture_output=True,
                            text=True).stdout.splitlines()
    prose = " ".join(" ".join(verse.split()[1:]) for verse in verses)
    path.write_text(f"Read this text.\n{prose}\nTell in two sentences what happens in the text.")
    path.chmod(0o644)


PATHS = {"bin": "KVASIR_BIN_DIR", "lib": "KVASIR_LIB_DIR", "model": "KVASIR_MODEL",
         "llama_lib": "KVASIR_LLAMA_LIB", "llama_tools": "KVASIR_LLAMA_TOOLS",
         "plugin": "KVASIR_LLAMA_TOOLS_PLUGIN", "python_env": "KVASIR_PYTHON_ENV",
         "python": "KVASIR_PYTHON_PACKAGE"}


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    stage = None
    try:
        mounts = become_several()
        stage = Stage({name: pathlib.Path(os.environ.get(variable) or "/nonexistent")
                       for name, variable in PATHS.items()}, mounts)
        stage.prepare()
        write_prompt(stage.folder / "prompt.txt")
        story = Story(stage)
        story.tell()
        print(f"\n{story.seen} of {story.seen + story.failed} claims were seen.")
        return 1 if story.failed else 0
    except CannotRun as reason:
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    except (Failed, subprocess.TimeoutExpired) as reason:
        print(f"demo: {reason}\n--- kvasird says:\n{stage.why()}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave things behind
        if stage:
            stage.close()


if __name__ == "__main__":
    sys.exit(main())
