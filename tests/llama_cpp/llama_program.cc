// Unmodified llama.cpp as a program: it links nothing of ours, and gets the plug-in, if any, by
// GGML_BACKEND_PATH. Usage: llama_program key=value..., beside those of llama_run.h
//   prompt=N steps=N   tokens that are given, and chosen greedily
//   logits=FILE        every logit, the prompt's included
//   save=FILE load=FILE  the sequence behind the prompt, and before it, as llama-server does slots
//   packed=VERSION     the tokens of save=FILE as llama-server packs them
//   stay=1             says "ready" behind the prompt and waits to be killed
//   stay=stop          stops behind the first step, as by SIGSTOP, until it gets SIGCONT
// Says "done" at the end. Exit status 3: no context, 4: decode failed, 5: no file.
#include <signal.h>
#include <unistd.h>

#include <csignal>

#include "tests/llama_cpp/llama_run.h"

int main(int argc, char** argv) {
  using kvasir::testing::Tell;
  kvasir::testing::LlamaRun run({{"prompt", "100"},
                                 {"steps", "64"},
                                 {"stay", "0"},
                                 {"save", ""},
                                 {"load", ""},
                                 {"packed", "0"}},
                                argc, argv);
  if (!run.Open()) return 3;
  std::vector<llama_token> tokens = run.Prompt(run.Number("prompt"));
  auto rows = static_cast<int32_t>(tokens.size());
  size_t loaded = 0;
  if (!run.Text("load").empty()) {
    std::vector<llama_token> of_file(tokens.size());
    if (llama_state_seq_load_file(run.context(), run.Text("load").c_str(), 0, of_file.data(),
                                  of_file.size(), &loaded) == 0) {
      return 5;
    }
  }
  if (!run.Decode(tokens, static_cast<int32_t>(loaded), rows)) return 4;
  if (!run.Text("save").empty()) {
    std::vector<llama_token> packed = tokens;
    if (run.Text("packed") != "0") {
      packed.insert(packed.begin(), {-1, run.Number("packed"), rows});
      packed.push_back(0);
    }
    if (llama_state_seq_save_file(run.context(), run.Text("save").c_str(), 0, packed.data(),
                                  packed.size()) == 0) {
      return 5;
    }
  }
  if (run.Text("stay") == "1") {
    Tell("ready");
    ::pause();
  }
  for (int32_t step = 0; step < run.Number("steps"); ++step, ++rows) {
    tokens.push_back(run.Likeliest());
    if (!run.Decode(tokens, rows, rows + 1)) return 4;
    if (run.Text("stay") == "stop" && step == 0) std::raise(SIGSTOP);
  }
  if (!run.WriteLogits()) return 5;
  Tell("done");
  return 0;
}
