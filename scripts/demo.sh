#!/usr/bin/env bash
# The demonstration behind ./dev demo: starts a daemon of its own, lets a real model write on the daemon's
# memory under SepLLM, then scores one text under three policies and compares what each keeps.
# Needs KVASIR_BIN_DIR and KVASIR_MODEL; runs from the top of the repository; leaves build/demo.json.
set -euo pipefail

BIN=$KVASIR_BIN_DIR
WORK=$(mktemp -d "${TMPDIR:-/tmp}/kvasir-demo.XXXXXX")
THREADS=$((($(nproc) + 1) / 2)) # ggml waits by spinning: a busy second core makes steps slow
TEXT_TOKENS=${KVASIR_DEMO_TOKENS:-2048}
ANSWER_TOKENS=${KVASIR_DEMO_ANSWER_TOKENS:-200}
DAEMON=
HOLDER=

stop() {
  [[ -z $HOLDER ]] || kill "$HOLDER" 2>/dev/null || true
  if [[ -n $DAEMON ]] && kill "$DAEMON" 2>/dev/null; then wait "$DAEMON" || true; fi
  rm -rf "$WORK"
}
trap stop EXIT

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf 'demo: %s\n' "$*" >&2
  [[ -s $WORK/kvasird.log ]] && { echo "--- kvasird says:" >&2; tail -20 "$WORK/kvasird.log" >&2; }
  exit 1
}

start_daemon() {
  cat >"$WORK/kvasird.toml" <<TOML
[server]
control_socket = "$WORK/control.sock"
data_socket = "$WORK/data.sock"
[memory]
pool_bytes = "384MiB"
ready_bytes = "192MiB"
[[tenant]]
name = "demo"
uids = [$(id -u)]
TOML
  "$BIN/kvasird" --config="$WORK/kvasird.toml" 2>"$WORK/kvasird.log" &
  DAEMON=$!
  for _ in $(seq 200); do
    [[ -S $WORK/control.sock ]] && "$BIN/kvasirctl" --socket="$WORK/control.sock" health >/dev/null 2>&1 && break
    kill -0 "$DAEMON" 2>/dev/null || fail "kvasird did not start"
    sleep 0.1
  done
  sed 's/^/   kvasird: /' "$WORK/kvasird.log"
  if grep -q 'locked=false' "$WORK/kvasird.log"; then
    echo "   Memory is not locked: the memlock limit of this user is $(ulimit -l) KiB. It may be swapped; all else is the same."
  fi
}

generate() { "$BIN/kvasir-generate" --model "$KVASIR_MODEL" --threads "$THREADS" --socket "$WORK/control.sock" --data-socket "$WORK/data.sock" "$@"; }

# compare NAME RETENTION: scores the text, looks at the daemon while the sequence lives, adds a line.
compare() {
  local name=$1 retention=$2 out=$WORK/$1.json
  mkfifo "$WORK/hold"
  generate --perplexity "$WORK/score.txt" --text-tokens "$TEXT_TOKENS" --decode 48 \
    --retention "$retention" --label "$name" --hold --output=json <"$WORK/hold" >"$out" &
  HOLDER=$!
  exec {hold}>"$WORK/hold"
  until [[ -s $out ]] && python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$out" 2>/dev/null; do
    kill -0 "$HOLDER" 2>/dev/null || fail "kvasir-generate failed under $retention"
    sleep 0.1
  done
  "$BIN/kvasirctl" --socket="$WORK/control.sock" --output=json stats >"$WORK/$name.stats.json"
  exec {hold}>&-
  wait "$HOLDER" || fail "kvasir-generate failed under $retention"
  HOLDER=
  rm "$WORK/hold"
}

say "kvasird starts and touches its memory"
start_daemon

# A long prompt and a text to score: public-domain prose from the Debian package bible-kjv-text.
{
  echo "Read this text."
  bible -f gen1:1-2:25 | sed 's/^[^ ]* *//'
  echo "Tell in your own words, in detail, what happens in the text."
} >"$WORK/prompt.txt"
bible -f exo1:1-20:26 | sed 's/^[^ ]* *//' >"$WORK/score.txt"

say "A model writes; its K and V rows live in the daemon, which keeps what SepLLM keeps"
generate --chat --prompt-file "$WORK/prompt.txt" --tokens "$ANSWER_TOKENS" \
  --retention "sepllm:form=static,init_cache_size=4,local_size=256" --label answer ||
  fail "kvasir-generate failed"

say "The same $TEXT_TOKENS tokens of text under three policies (some tens of seconds each)"
compare full "full"
compare streamingllm "streamingllm:start_size=4,recent_size=512,positions=original"
compare sepllm "sepllm:form=static,init_cache_size=4,local_size=256"
python3 scripts/demo_table.py "$WORK" build/demo.json full streamingllm sepllm
