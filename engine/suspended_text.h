// SuspendedText: what a program remembers of a text whose sequence is saved: a small file, by which
// another process goes on.
#ifndef KVASIR_ENGINE_SUSPENDED_TEXT_H_
#define KVASIR_ENGINE_SUSPENDED_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "engine/tokenizer.h"

namespace kvasir::engine {

struct SuspendedText {
  std::string snapshot_id;  // 16 bytes
  uint64_t rows = 0;        // tokens that the snapshot holds
  std::string retention;    // canonical
  // Tokens behind them that are picked and not computed yet: none, or the last one.
  std::vector<uint32_t> pending;
  // Of a chat: its messages, and the text of the template up to `pending`, which is computed.
  std::vector<ChatMessage> messages;
  std::string done;
};

// The file is foreign: every field is checked before it is used. Errors: those of the file system;
// kInvalidArgument naming path, field and bound.
absl::StatusOr<SuspendedText> ReadSuspendedText(const std::string& path, uint32_t vocabulary);

// Readable by its owner only, since whoever has the id may open the snapshot; replaces a file at
// once or not at all. Errors: those of the file system.
absl::Status WriteSuspendedText(const SuspendedText& text, const std::string& path);

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_SUSPENDED_TEXT_H_
