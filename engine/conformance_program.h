// `kvasir-generate --conformance`: the engine behind the lines that kvasir-conformance speaks.
#ifndef KVASIR_ENGINE_CONFORMANCE_PROGRAM_H_
#define KVASIR_ENGINE_CONFORMANCE_PROGRAM_H_

#include <absl/status/status.h>

#include "engine/program.h"

namespace kvasir::engine {

// Answers standard input on standard output until it ends (docs/engine_guide.md). The daemon's
// sockets and the deadline come from the environment. Errors: those of loading the model; what goes
// wrong later is an answer.
absl::Status RunConformance(const ProgramOptions& options);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_CONFORMANCE_PROGRAM_H_
