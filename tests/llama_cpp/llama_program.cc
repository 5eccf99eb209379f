// Unmodified llama.cpp as a program: it links nothing of ours, and gets the plug-in, if any, by
// GGML_BACKEND_PATH. Usage: llama_program key=value..., beside those of llama_run.h
//   prompt=N steps=N   tokens that are given, and chosen greedily
//   logits=FILE        every logit, the prompt's included
//   stay=1             says "ready" behind the prompt and waits to be killed
//   stay=step          says "step" at each step, and takes its time
// Says "done" at the end. Exit status 3: no context, 4: decode failed, 5: no file.
#include <unistd.h>

#include "tests/llama_cpp/llama_run.h"

int main(int argc, char** argv) {
  using kvasir::testing::Tell;
  kvasir::testing::LlamaRun run({{"prompt", "100"}, {"steps", "64"}, {"stay", "0"}}, argc, argv);
  if (!run.Open()) return 3;
  std::vector<llama_token> tokens = run.Prompt(run.Number("prompt"));
  auto rows = static_cast<int32_t>(tokens.size());
  if (!run.Decode(tokens, 0, rows)) return 4;
  if (run.Text("stay") == "1") {
    Tell("ready");
    ::pause();
  }
  for (int32_t step = 0; step < run.Number("steps"); ++step, ++rows) {
    tokens.push_back(run.Likeliest());
    if (!run.Decode(tokens, rows, rows + 1)) return 4;
    if (run.Text("stay") == "step") {
      Tell("step");
      ::usleep(20'000);
    }
  }
  if (!run.WriteLogits()) return 5;
  Tell("done");
  return 0;
}
