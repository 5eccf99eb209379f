// The mode --profile of kvasir-generate: what makes token-mixed rows of a model better.
#ifndef KVASIR_ENGINE_PROFILE_PROGRAM_H_
#define KVASIR_ENGINE_PROFILE_PROGRAM_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "engine/compare_program.h"
#include "engine/gguf_model.h"
#include "engine/llama_engine.h"

namespace kvasir::engine {

struct ProfileOptions {
  uint32_t batch = 16;
  EngineOptions engine;
  std::string path;  // of the file to write
};

// Bits that a layer deserves above the mean, by the loss of encoding it alone: half the binary
// logarithm of the loss relative to the geometric mean, since one bit more takes three quarters of
// the squared error away. Rates add up to 0.
std::vector<double> RatesOf(const std::vector<double>& losses);

// Measures on `texts` and writes the file that kvasird reads from retention.profile_dir: for each
// kv head the mean square of each channel of the rotated queries that meet it, relative to the
// head's mean; and for each layer the bits its keys and its values deserve. Memory: ten sequences
// of the longest text. Cost: two computations of each text a layer. Errors: those of the parts.
absl::Status RunProfile(const GgufModel& model, const ProfileOptions& options,
                        const std::vector<CompareText>& texts);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_PROFILE_PROGRAM_H_
