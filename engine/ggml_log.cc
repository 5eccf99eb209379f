#include "engine/ggml_log.h"

#include <mutex>
#include <utility>

#include <ggml.h>
#include <llama.h>

namespace kvasir::engine {
namespace {

constexpr size_t kErrorBytesMax = 1024;  // a hostile file can make thousands of lines

std::string& ThreadErrors() {
  thread_local std::string errors;
  return errors;
}

void OnLog(ggml_log_level level, const char* text, void* /*user_data*/) {
  std::string& errors = ThreadErrors();
  if (level < GGML_LOG_LEVEL_ERROR || level == GGML_LOG_LEVEL_CONT) return;
  if (errors.size() < kErrorBytesMax) errors += text;
}

}  // namespace

void QuietLibraries() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(OnLog, nullptr);
    ggml_log_set(OnLog, nullptr);
  });
}

std::string TakeLibraryErrors() {
  std::string text = std::exchange(ThreadErrors(), {});
  for (char& c : text) {
    if (c == '\n') c = ';';
  }
  while (!text.empty() && (text.back() == ';' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace kvasir::engine
