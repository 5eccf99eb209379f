// What kvasir-generate does once its command line is parsed.
#ifndef KVASIR_ENGINE_PROGRAM_H_
#define KVASIR_ENGINE_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "engine/compare_program.h"
#include "engine/generator.h"
#include "engine/gguf_model.h"
#include "engine/llama_engine.h"
#include "engine/make_kv_store.h"

namespace kvasir::engine {

struct ProgramOptions {
  std::string model_path;
  WeightsMode weights = WeightsMode::kAsStored;
  std::optional<std::string> prompt;  // text to continue, or the only message of a chat
  std::string prompt_path;            // the same from a file; "-": standard input
  std::string perplexity_path;        // text to score
  bool chat = false;                  // without a prompt: messages are read from standard input
  std::string system;                 // system message of a chat
  uint64_t text_tokens = 0;           // of the prompt or text, the first ones; 0: all
  uint64_t context = 0;               // rows of the sequence; 0: the model's
  uint32_t batch = 256;
  bool json = false;
  bool compare = false, recommend = false, profile = false;  // the modes of these names
  bool conformance = false;                                  // speaks with kvasir-conformance
  std::vector<std::string> text_paths;                       // of those modes
  CompareOptions comparison;  // what the command line says of it; the rest is taken from here
  std::string profile_path;
  // Files of suspended texts (suspended_text.h); "": none. A text goes on from the first, and is
  // left in the second when it ends.
  std::string resume_path, suspend_path;
  bool share = false;          // the prompt is looked up, and offered to others
  bool show_selected = false;  // what a selection policy chose of the prompt
  bool hold = false;           // keep the sequence until standard input ends
  uint64_t decode_tokens = 0;  // after a scored text: decode steps to time
  GenerateOptions generate;
  EngineOptions engine;
  KvStoreOptions store;
};

// Writes text or JSON to standard output, progress and statistics to standard error.
// Errors: those of the parts; kInvalidArgument for a prompt that does not fit the context,
// show_selected with a retention that selects nothing, and a selecting one for a text to score.
absl::Status RunProgram(const ProgramOptions& options);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_PROGRAM_H_
