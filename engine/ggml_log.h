// Keeps ggml and libllama quiet, and their error texts for our own messages.
#ifndef KVASIR_ENGINE_GGML_LOG_H_
#define KVASIR_ENGINE_GGML_LOG_H_

#include <string>

namespace kvasir::engine {

// Sets the log callbacks of both libraries, once a process. Thread-safe.
void QuietLibraries();

// The error lines that the libraries logged on this thread since the last call, joined; clears
// them.
std::string TakeLibraryErrors();

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_GGML_LOG_H_
